from __future__ import annotations

from typing import Annotated

from omnicache.granularity import Layers
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.predictors import Residual, Taylor
from omnicache.registry import Range, method
from omnicache.signals import ProbeChange
from omnicache.triggers import Above, First


@method(
    "first-block-cache",
    paper="First-Block-Cache (ParaAttention)",
    axes={"when": "change of what the first block adds", "where": "all blocks after it", "how": "hold the increment", "fix": "-"},
    architectures="transformers",
    off={"threshold": 0.0},
    sweep={"threshold": (0.03, 0.06, 0.1, 0.2, 0.4)},
)
def first_block_cache(
    threshold: float = 0.08,
    warmup: Annotated[int, Range(1)] = 1,
    longest: Annotated[int, Range(0)] | None = None,
    order: Annotated[int, Range(0, 4)] = 0,
) -> Plan:
    """Runs the first block at every step, and the others when what it adds has changed enough since they last ran.

    Args:
        threshold: relative change from which on a step is computed.
        warmup: computed steps at the start.
        longest: the most reuses in a row.
        order: of a forecast of the increment; 0 holds it.
    """
    when = First(warmup) | Above(ProbeChange(1), threshold, longest)
    options = {"threshold": threshold, "warmup": warmup, "longest": longest, "order": order}
    return Plan("first-block-cache", (Policy(when, Layers(1, None), Residual(Taylor(order))),), options)
