from __future__ import annotations

from typing import Annotated

from omnicache.granularity import MLP, Attention, Stack
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.predictors import Hold, Residual
from omnicache.registry import Choice, Range, method
from omnicache.triggers import Every, First


@method(
    "fora",
    paper="FORA: Fast-Forward Caching in Diffusion Transformer Acceleration (arXiv 2407.01425)",
    axes={"when": "every n-th step", "where": "attention and MLP", "how": "hold", "fix": "-"},
    architectures="transformers with attention and MLP blocks",
    off={"interval": 1},
    sweep={"interval": (2, 3, 4, 5, 7)},
)
def fora(
    interval: Annotated[int, Range(1, 1000)] = 3,
    count: Annotated[str, Choice(("down", "up"))] = "down",
    granularity: Annotated[str, Choice(("module", "stack"))] = "module",
) -> Plan:
    """Computes one step in ``interval``; in between, attention and MLP outputs are the last computed ones, under fresh gates.

    Args:
        interval: the paper's N.
        count: "down" numbers the steps from the end, as released, so that the last step is computed; "up" from the start.
        granularity: "module" as published; "stack" keeps one increment of all blocks, which frees the gates and norms too.
    """
    when = First(1) | Every(interval, phase=0, backwards=count == "down")
    policy = Policy(when, Attention() | MLP(), Hold()) if granularity == "module" else Policy(when, Stack(), Residual(Hold()))
    return Plan("fora", (policy,), {"interval": interval, "count": count, "granularity": granularity})
