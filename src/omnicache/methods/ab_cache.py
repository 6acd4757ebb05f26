from __future__ import annotations

from typing import Annotated

from omnicache.granularity import Denoiser
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.predictors import AdamsBashforth
from omnicache.predictors.adams_bashforth import SPACINGS
from omnicache.registry import Choice, Range, method
from omnicache.triggers import Every, First


@method(
    "ab-cache",
    paper="AB-Cache: Training-Free Acceleration of Diffusion Models via Adams-Bashforth Cached Feature Reuse (arXiv 2504.10540)",
    axes={"when": "the first steps, then every n-th", "where": "denoiser", "how": "Adams-Bashforth", "fix": "-"},
    architectures="any",
    off={"interval": 1},
    sweep={"interval": (2, 3, 4, 6, 8)},
)
def ab_cache(
    interval: Annotated[int, Range(1, 1000)] = 6,
    warmup: Annotated[int, Range(1, 1000)] = 5,
    terms: Annotated[int, Range(1, 8)] = 2,
    spacing: Annotated[str, Choice(SPACINGS)] = "nodes",
) -> Plan:
    """Forecasts the output of the whole model from its last ones; nothing of it runs at a reused step.

    It is the forecast of either guidance branch, which is that of the guided output, since both are linear.

    Args:
        interval: one computed step in so many, those whose index it divides.
        warmup: computed steps at the start.
        terms: outputs that a forecast takes (k); each doubles what an error may grow to.
        spacing: "nodes" takes into account how far apart they were computed; "unit" is the released form, with forecasts of
            forecasts; "log-snr" the paper's derivation, the last output times a number.
    """
    policy = Policy(First(warmup) | Every(interval, phase=0), Denoiser(), AdamsBashforth(terms, spacing))
    return Plan("ab-cache", (policy,), {"interval": interval, "warmup": warmup, "terms": terms, "spacing": spacing})
