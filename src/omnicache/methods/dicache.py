from __future__ import annotations

from typing import Annotated

from omnicache.granularity import Layers
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.predictors import Aligned, Hold, Residual
from omnicache.registry import Choice, Range, method
from omnicache.signals import ProbeChange
from omnicache.triggers import Accumulate, Between, First, Last


@method(
    "dicache",
    paper="DiCache: Let Diffusion Model Determine Its Own Cache (arXiv 2508.17356)",
    axes={
        "when": "accumulated change of what the first blocks hand on",
        "where": "all blocks after them",
        "how": "increment, extrapolated as far as they show",
        "fix": "-",
    },
    architectures="transformers",
    off={"threshold": float("-inf")},
    presets={"FluxTransformer2DModel": {"threshold": 0.4}, "WanTransformer3DModel": {"threshold": 0.2, "limit": 2.0}},
    sweep={"threshold": (0.05, 0.1, 0.2, 0.4, 0.8)},
)
def dicache(
    threshold: float = 0.1,
    depth: Annotated[int, Range(1, 100)] = 1,
    warmup: Annotated[float, Range(0, 1)] = 0.2,
    tail: Annotated[int, Range(0, 1000)] = 1,
    limit: Annotated[float, Range(1)] = 1.5,
    measure: Annotated[str, Choice(("output", "excess"))] = "output",
    align: bool = True,
) -> Plan:
    """Runs the first blocks at every step; what they hand on tells when to run the others, and how far to extrapolate them if not.

    Args:
        threshold: accumulated relative change from which on a step is computed.
        depth: blocks that always run.
        warmup: share of the steps that are computed at the start.
        tail: computed steps at the end.
        limit: the farthest extrapolation, in steps between the two newest computed ones.
        measure: "output" is the change of what the first blocks hand on, "excess" by how much it differs from that of their input.
        align: False holds the increment.
    """
    signal = ProbeChange(depth, measure, "visited")
    when = First(1) | Between(0.0, warmup) | Last(tail) if warmup else First(1) | Last(tail)
    how = Aligned(limit) if align else Residual(Hold())
    options = {"threshold": threshold, "depth": depth, "warmup": warmup, "tail": tail, "limit": limit}
    policy = Policy(when | Accumulate(signal, threshold), Layers(depth, None), how)
    return Plan("dicache", (policy,), {**options, "measure": measure, "align": align})
