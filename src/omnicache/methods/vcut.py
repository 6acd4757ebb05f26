from __future__ import annotations

from typing import Annotated

from omnicache.granularity import CrossAttention, Temporal
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.predictors import Constant, Pooled, Zero
from omnicache.registry import Choice, Range, method
from omnicache.triggers import First


@method(
    "vcut",
    paper="VCUT: Efficient image-to-video synthesis by unlocking cross-attention (arXiv 2407.19205)",
    axes={"when": "the first steps", "where": "cross-attention", "how": "a constant", "fix": "-"},
    architectures="models whose cross-attention looks at one token (Stable Video Diffusion)",
    off={"gate": 100000},
    sweep={"mode": ("exact", "paper")},
)
def vcut(
    mode: Annotated[str, Choice(("exact", "paper"))] = "exact",
    gate: Annotated[int, Range(1)] = 1,
) -> Plan:
    """Attends to a single token once: whatever asks, the answer is the same, at every place and step.

    Args:
        mode: "exact" keeps that answer for each branch of guidance, which changes nothing. "paper" takes the mean of the branches,
            and leaves cross-attention along time out, from the gate on.
        gate: the steps that compute cross-attention.
    """
    if mode == "exact":
        policies = (Policy(First(gate), CrossAttention(), Constant()),)
    else:
        space, time = CrossAttention() - Temporal(), CrossAttention() & Temporal()
        policies = (Policy(First(gate), space, Pooled(Constant())), Policy(First(gate), time, Zero()))
    return Plan("vcut", policies, {"mode": mode, "gate": gate})
