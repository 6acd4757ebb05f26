from __future__ import annotations

from typing import Annotated

from omnicache.granularity import Attention, CrossAttention, Guidance
from omnicache.plan import Plan
from omnicache.policy import Policy, Trigger
from omnicache.predictors import Pooled, Same
from omnicache.registry import Choice, Range, method
from omnicache.triggers import Between, Every, First

Interval = Annotated[int, Range(1, 1000)]


@method(
    "t-gate",
    paper="T-GATE: Faster Diffusion via Temporal Attention Decomposition (arXiv 2404.02747)",
    axes={
        "when": "up to a gate step",
        "where": "cross-attention, self-attention, guidance",
        "how": "hold the branches' mean",
        "fix": "-",
    },
    architectures="models with cross-attention",
    off={"gate": 100000, "interval": 1},
    presets={
        "PixArtTransformer2DModel": {"gate": 15, "interval": 3},
        "UNet2DConditionModel": {"gate": 10, "interval": 5},
    },
    sweep={"gate": (40, 20, 10, 6)},
)
def t_gate(
    gate: Annotated[int, Range(1)] = 10,
    interval: Interval = 5,
    after: Interval = 1,
    warmup: Annotated[int, Range(0)] = 2,
    runs: Annotated[str, Choice(("unconditional", "conditional"))] = "unconditional",
) -> Plan:
    """Computes self-attention rarely before the gate, and after it no cross-attention and only one branch of guidance.

    The defaults are those of v2 for SDXL with 25 steps; ``interval=1`` is v1.

    Args:
        gate: the steps that look at the text. From then on cross-attention is the mean of the branches of guidance, as it was at
            the last of them, and guidance is dropped. For a consistency model 1 or 2 of 4.
        interval, after: one step in so many computes self-attention before the gate, and from it on (sp_interval, fi_interval).
        warmup: steps after the first that compute self-attention in any case.
        runs: the half of a batch that runs from the gate on, "unconditional" as released; they differ only in conditions that are
            not attended to. Of two calls the first one does, whichever that is.
    """
    options = dict(locals())
    policies = [Policy(First(gate), CrossAttention(), Pooled()), Policy(First(gate), Guidance(runs), Same())]
    if interval > 1 or after > 1:
        before: Trigger = Every(interval, 0) & First(gate)
        later: Trigger = Every(after, 0) & Between(gate, 1.0)
        when = First(min(warmup + 1, gate)) | before | Between(gate - 1, gate) | later
        policies.append(Policy(when, Attention() - CrossAttention(), Pooled(since=gate - 1)))
    return Plan("t-gate", tuple(policies), options)
