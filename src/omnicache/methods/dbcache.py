from __future__ import annotations

import math
from typing import Annotated

from omnicache.errors import OmniCacheError
from omnicache.granularity import Layers
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.predictors import Residual, Taylor
from omnicache.registry import Range, method
from omnicache.signals import ProbeChange
from omnicache.triggers import Above, First, Table


@method(
    "dbcache",
    paper="DBCache: dual block cache (cache-dit)",
    axes={"when": "change of what the first blocks add", "where": "the blocks between", "how": "hold the increment", "fix": "-"},
    architectures="transformers",
    off={"threshold": 0.0},
    sweep={"threshold": (0.03, 0.06, 0.1, 0.2, 0.4)},
)
def dbcache(
    front: Annotated[int, Range(1)] = 8,
    back: Annotated[int, Range(0)] = 0,
    threshold: float = 0.08,
    warmup: Annotated[int, Range(1)] = 8,
    longest: Annotated[int, Range(0)] | None = None,
    most: Annotated[int, Range(0)] | None = None,
    budget: Annotated[float, Range(0)] | None = None,
    order: Annotated[int, Range(0, 4)] = 0,
    mask: str = "",
) -> Plan:
    """Runs the first and last blocks at every step, and those between when what the first ones add has changed enough.

    Args:
        front, back: blocks that always run (Fn and Bn).
        threshold: relative change, to the last computed step, from which on a step is computed; from 1 on none is for its change.
        warmup: computed steps at the start.
        longest, most, budget: the most reuses in a row, of a run, and the most that the changes of its reused steps may come to.
        order: of a forecast of the increment (its TaylorSeer calibrator); 0 holds it.
        mask: one character a step: at "#" it is computed whatever has changed.
    """
    if mask and set(mask) - {"#", "."}:
        raise OmniCacheError(f'dbcache: option mask: "#" computes a step and "." lets the change decide; {mask!r} has others.')
    when = First(warmup) | Above(ProbeChange(front), threshold if threshold < 1 else math.inf, longest, most, budget)
    if mask:
        when = Table(mask) | when
    policy = Policy(when, Layers(front, -back or None), Residual(Taylor(order)))
    options = {"front": front, "back": back, "threshold": threshold, "warmup": warmup, "longest": longest}
    return Plan("dbcache", (policy,), {**options, "most": most, "budget": budget, "order": order, "mask": mask})
