from __future__ import annotations

from typing import Annotated

from omnicache.granularity import Attention, CrossAttention, Else, Nth, Stack, Temporal
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.predictors import Hold, Residual
from omnicache.registry import Choice, Range, method
from omnicache.signals import FrameMotion, OutputChange
from omnicache.triggers import Codebook, First, Last

BOOKS = {
    "fast": ((0.08, 0.16, 0.24, 0.32, 0.40), (6, 5, 4, 3, 2, 1), (4 / 30, 26 / 30)),
    "slow": ((0.08, 0.16, 0.24), (3, 2, 1, 1), (4 / 30, 26 / 30)),
    "long": ((0.03, 0.05, 0.07, 0.09, 0.11), (12, 10, 8, 6, 4, 3), (0.1, 0.9)),
}
"""The released ones, for 30 steps and ("long") 100: change a step, the steps to the next computed one, and the window of MoReg."""


@method(
    "adacache",
    paper="Adaptive Caching for Faster Video Generation with Diffusion Transformers (arXiv 2411.02397)",
    axes={"when": "rate of change, by a table", "where": "stack", "how": "hold the increment", "fix": "-"},
    architectures="transformers",
    off={"book": "slow", "scale": 1e6},
    sweep={"scale": (4.0, 2.0, 1.0, 0.5, 0.25)},
)
def adacache(
    book: Annotated[str, Choice(tuple(BOOKS))] = "fast",
    scale: Annotated[float, Range(1e-6)] = 1.0,
    depth: Annotated[float, Range(0, 1)] = 0.5,
    motion: bool = True,
) -> Plan:
    """Looks up how long to wait for the next computed step, from how fast the attention in the middle changed before the last.

    All blocks share one schedule, so one increment is kept and not one a block, which is the same (reference, 0.3.6).

    Args:
        book: the paper's tables, "fast" and "slow" for about 30 steps and "long" for 100.
        scale: multiplies the measured change: above 1 more is computed, below 1 less.
        depth: where along the model the attention lies that is watched; along time, in models where that is apart.
        motion: whether what moves counts (MoReg); only films have it.
    """
    limits, steps, window = BOOKS[book]
    watched = Nth(Else(Attention() & Temporal(), Attention() - CrossAttention()), depth)
    moves = FrameMotion(watched) if motion else None
    when = Codebook(OutputChange(watched), tuple(x / scale for x in limits), steps, moves, window=window)
    options = {"book": book, "scale": scale, "depth": depth, "motion": motion}
    return Plan("adacache", (Policy(First(1) | Last(2) | when, Stack(), Residual(Hold())),), options)
