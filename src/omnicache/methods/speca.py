from __future__ import annotations

from typing import Annotated

from omnicache.granularity import MLP, Attention
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.predictors import Taylor
from omnicache.registry import Choice, Range, method
from omnicache.triggers import First, Verify


@method(
    "speca",
    paper="SpeCa: Accelerating Diffusion Transformers with Speculative Feature Caching (arXiv 2509.11628)",
    axes={"when": "measured error of the last block", "where": "attention and MLP", "how": "Taylor", "fix": "roll-back (option)"},
    architectures="transformers",
    off={"longest": 0},
    sweep={"longest": (2, 3, 4, 5, 8)},
)
def speca(
    threshold: Annotated[float, Range(0)] = 0.1,
    decay: Annotated[float, Range(0, 1)] = 0.01,
    floor: Annotated[float, Range(0)] = 0.01,
    shortest: Annotated[int, Range(0, 1000)] = 2,
    longest: Annotated[int, Range(0, 1000)] = 5,
    order: Annotated[int, Range(0, 6)] = 4,
    basis: Annotated[str, Choice(("taylor", "newton"))] = "taylor",
    warmup: Annotated[int, Range(1, 1000)] = 3,
    redo: bool = False,
) -> Plan:
    """Drafts steps by forecasting, verifies each on the last block, and computes when a draft has strayed.

    Args:
        threshold, decay, floor: the accepted relative error falls from ``threshold`` by ``decay`` over the run, down to ``floor``.
        shortest, longest: the fewest drafts before one is verified, and the most in a row.
        order, basis: of the forecast, as in taylorseer.
        warmup: computed steps at the start.
        redo: False as released: a bad draft is kept and the next step computed. True: every draft is verified, and a bad one
            is computed on the spot.
    """
    verify = Verify(threshold, decay, floor, shortest, longest, redo)
    policy = Policy(First(warmup) | verify, Attention() | MLP(), Taylor(order, basis, since=warmup - 1))
    options = {"threshold": threshold, "decay": decay, "floor": floor, "shortest": shortest, "longest": longest}
    return Plan("speca", (policy,), {**options, "order": order, "basis": basis, "warmup": warmup, "redo": redo})
