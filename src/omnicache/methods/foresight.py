from __future__ import annotations

from typing import Annotated

from omnicache.granularity import Blocks
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.predictors import Hold
from omnicache.registry import Range, method
from omnicache.triggers import Every, First, Foresight


@method(
    "foresight",
    paper="Foresight: Adaptive Layer Reuse for Accelerated and High-Quality Text-to-Video Generation (arXiv 2506.00329)",
    axes={"when": "each layer's change against that of the warm-up", "where": "the first layers", "how": "hold", "fix": "-"},
    architectures="transformers",
    off={"interval": 1},
    sweep={"scale": (0.5, 1.0, 2.0, 4.0)},
)
def foresight(
    scale: Annotated[float, Range(0)] = 1.0,
    interval: Annotated[int, Range(1, 1000)] = 2,
    warmup: Annotated[int, Range(2, 1000)] = 8,
    terms: Annotated[int, Range(1, 10)] = 3,
) -> Plan:
    """Learns in a warm-up how much each layer's output changes, and then reuses layers that change no more than that.

    Args:
        scale: the paper's gamma; 0.25 is careful, 2 is fast.
        interval: one step in so many is computed whole (R).
        warmup: computed steps at the start (W).
        terms: changes of the warm-up that are weighed; 3 as in the paper, 1 as released.
    """
    when = First(warmup) | Every(interval, phase=0) | Foresight(scale=scale, warmup=warmup, terms=terms)
    options = {"scale": scale, "interval": interval, "warmup": warmup, "terms": terms}
    return Plan("foresight", (Policy(when, Blocks(), Hold()),), options)
