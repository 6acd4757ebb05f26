from __future__ import annotations

from typing import Annotated

from omnicache.granularity import MLP, Attention, Temporal, Text
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.predictors import FromKept
from omnicache.registry import Range, method
from omnicache.selectors import Tokens
from omnicache.triggers import First


@method(
    "tomesd",
    paper="Token Merging for Fast Stable Diffusion (arXiv 2303.17604)",
    axes={"when": "never", "where": "attention (and MLP) by token", "how": "copies of what was merged", "fix": "-"},
    architectures="transformers and U-Nets with attention over the tokens of a picture",
    off={"ratio": 0.0},
    sweep={"ratio": (0.1, 0.25, 0.4, 0.5, 0.7)},
)
def tomesd(
    ratio: Annotated[float, Range(0, 0.75)] = 0.5,
    mlp: bool = False,
    redraw: bool = True,
    seed: int = 0,
) -> Plan:
    """Merges tokens that are alike by their mean before attention, and copies the result to all of them. Keeps nothing.

    Args:
        ratio: share of the tokens that are merged into others.
        mlp: whether they are merged for feed-forward modules, too.
        redraw: whether it is drawn anew at every step which token of four the others are merged into.
        seed: of that lottery.
    """
    where = (Attention() | MLP() if mlp else Attention()) - Temporal() - Text()
    merged = Tokens(ratio, redraw=redraw, merge=True, stand_in="match", aligned=False, seed=seed)
    policies = (Policy(First(0), where, FromKept(), which=merged),) if ratio else ()
    return Plan("tomesd", policies, {"ratio": ratio, "mlp": mlp, "redraw": redraw, "seed": seed}, min_steps=1)
