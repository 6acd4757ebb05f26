from __future__ import annotations

from typing import Annotated

from omnicache.calibrate.curves import calibrate_teacache
from omnicache.granularity import Stack
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.predictors import Hold, Residual
from omnicache.registry import Range, method
from omnicache.runtime.signals import ModulatedInputChange
from omnicache.triggers import Accumulate, First, Last


@method(
    "teacache",
    paper="Timestep Embedding Tells: It's Time to Cache for Video Diffusion Model (arXiv 2411.19108)",
    axes={"when": "accumulated change of the modulated input", "where": "stack", "how": "hold the increment", "fix": "-"},
    architectures="transformers with adaLN",
    off={"threshold": float("-inf")},
    calibrate=calibrate_teacache,
    sweep={"reuse": (0.3, 0.4, 0.5, 0.6, 0.7)},
)
def teacache(
    threshold: float = 0.15,
    coefficients: tuple[float, ...] = (1.0, 0.0),
    warmup: Annotated[int, Range(1, 1000)] = 1,
    tail: Annotated[int, Range(0, 1000)] = 1,
) -> Plan:
    """Recomputes once the predicted change of the output since the last computation reaches ``threshold``.

    Args:
        threshold: relative change of the output that is tolerated; the paper uses 0.1 to 0.8.
        coefficients: polynomial from the signal's change to the output's, highest degree first; ``omnicache.calibrate`` fits it.
        warmup: computed steps at the start.
        tail: computed steps at the end.
    """
    signal = ModulatedInputChange()
    when = First(warmup) | Last(tail) | Accumulate(signal, threshold, coefficients)
    options = {"threshold": threshold, "coefficients": coefficients, "warmup": warmup, "tail": tail}
    return Plan("teacache", (Policy(when, Stack(), Residual(Hold())),), options)
