from __future__ import annotations

from typing import Annotated

from omnicache.calibrate.curves import calibrate_teacache
from omnicache.granularity import Stack
from omnicache.methods._released import presets, released, settled
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.predictors import Hold, Residual
from omnicache.registry import Choice, Range, method
from omnicache.signals import ModulatedInputChange, TimeChange
from omnicache.triggers import Accumulate, First, Last

RELEASED = released("teacache")
PLAIN = {"threshold": 0.15, "coefficients": (1.0, 0.0), "warmup": 1, "tail": 1, "signal": "modulated"}


@method(
    "teacache",
    paper="Timestep Embedding Tells: It's Time to Cache for Video Diffusion Model (arXiv 2411.19108)",
    axes={"when": "accumulated change of the modulated input", "where": "stack", "how": "hold the increment", "fix": "-"},
    architectures="transformers with adaLN",
    off={"threshold": float("-inf")},
    calibrate=calibrate_teacache,
    presets=presets(RELEASED),
    sweep={"reuse": (0.3, 0.4, 0.5, 0.6, 0.7)},
)
def teacache(
    threshold: float | None = None,
    coefficients: tuple[float, ...] | None = None,
    warmup: Annotated[int | None, Range(1, 1000)] = None,
    tail: Annotated[int | None, Range(0, 1000)] = None,
    signal: Annotated[str | None, Choice(("modulated", "time"))] = None,
    floor: bool = True,
    model: Annotated[str | None, Choice(tuple(RELEASED))] = None,
) -> Plan:
    """Recomputes once the predicted change of the output since the last computation reaches ``threshold``.

    Args:
        threshold: relative change of the output that is tolerated; the paper uses 0.1 to 0.8. 0.15 unless ``model`` says otherwise.
        coefficients: polynomial from the signal's change to the output's, highest degree first; ``omnicache.calibrate`` fits it.
        warmup, tail: computed steps at the start and at the end; 1.
        signal: what is watched, the first block's "modulated" input or the embedded "time" that it is given.
        floor: whether an estimate below nothing counts as nothing; it is added as it is if not, as released.
        model: take what was released for this model wherever nothing else is asked for. Known models find it by themselves.
    """
    asked = {"threshold": threshold, "coefficients": coefficients, "warmup": warmup, "tail": tail, "signal": signal}
    o = settled(PLAIN, RELEASED[model] if model else {}, asked)
    watched = ModulatedInputChange() if o["signal"] == "modulated" else TimeChange()
    when = First(o["warmup"]) | Last(o["tail"]) | Accumulate(watched, o["threshold"], o["coefficients"], 0.0 if floor else None)
    return Plan("teacache", (Policy(when, Stack(), Residual(Hold())),), {**o, "floor": floor, "model": model})
