from __future__ import annotations

from typing import Annotated

from omnicache.granularity import Called, Span
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.predictors import Hold, Residual
from omnicache.registry import Range, method
from omnicache.triggers import Between, Every

NEVER = 10**6


@method(
    "delta-dit",
    paper="Delta-DiT: A Training-Free Acceleration Method Tailored for Diffusion Transformers (arXiv 2406.01125)",
    axes={"when": "every n-th step", "where": "rear blocks early, front blocks late", "how": "hold the increment", "fix": "-"},
    architectures="transformers",
    off={"interval": 1},
    sweep={"interval": (2, 3, 4)},
)
def delta_dit(
    interval: Annotated[int, Range(1, 1000)] = 2,
    span: Annotated[float, Range(0, 1)] = 0.75,
    boundary: Annotated[float, Range(0)] = 0.6,
) -> Plan:
    """Between full steps carries over what most blocks have added: the rear ones early in the run, and the front ones late.

    The two spans share the blocks in the middle when they are longer than half of the model, so it is cut where either begins or
    ends: into parts in front, in the middle and in the rear, whose increments add up to those of the spans.

    Args:
        interval: the paper's N; one step in so many computes all blocks.
        span: share of the blocks that is skipped (N_c over L; 21 of 28 is 0.75). 0 skips none.
        boundary: the paper's b, a number of steps, or a share of the run: 12 of 20 steps is 0.6.
    """
    edge, at = min(span, 1.0 - span), boundary or 0.0
    full, early, late = Every(interval, phase=0), Between(0, at), Between(at, NEVER)
    parts = {
        "front": (full | early, Span(0, edge)),
        "middle": (full, Span(edge, -edge or None)),
        "rear": (full | late, Span(-edge or None, None)),
    }
    if not edge:  # none of the model, or all of it
        parts = {"middle": parts["middle"]} if span else {}
    elif span <= 0.5:
        del parts["middle"]
    policies = [
        Policy(when, Called(where, f"{name} blocks in a row", optional=True), Residual(Hold()))
        for name, (when, where) in parts.items()
    ]
    return Plan("delta-dit", tuple(policies), {"interval": interval, "span": span, "boundary": boundary})
