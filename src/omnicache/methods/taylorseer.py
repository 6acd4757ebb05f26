from __future__ import annotations

from typing import Annotated

from omnicache.granularity import MLP, Attention, Stack
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.predictors import Residual, Taylor
from omnicache.registry import Choice, Range, method
from omnicache.triggers import Every, First


@method(
    "taylorseer",
    paper="From Reusing to Forecasting: Accelerating Diffusion Models with TaylorSeers (arXiv 2503.06923)",
    axes={"when": "the first steps, then every n-th", "where": "attention and MLP, or the stack", "how": "Taylor", "fix": "-"},
    architectures="transformers",
    off={"interval": 1},
    sweep={"interval": (2, 3, 4, 5, 7)},
)
def taylorseer(
    interval: Annotated[int, Range(1, 1000)] = 5,
    warmup: Annotated[int, Range(1, 1000)] = 3,
    order: Annotated[int, Range(0, 6)] = 1,
    basis: Annotated[str, Choice(("taylor", "newton"))] = "taylor",
    granularity: Annotated[str, Choice(("module", "stack"))] = "stack",
) -> Plan:
    """Forecasts features from their last computed values instead of repeating them.

    Args:
        interval: one computed step in so many, counted from the last computed one.
        warmup: computed steps at the start; values before the last of them are not used.
        order: 0 repeats, 1 continues the slope, 2 the curve.
        basis: "taylor" is the released ladder of differences, "newton" the exact interpolation on uneven steps.
        granularity: "module" forecasts every attention and MLP output; "stack" one increment of all blocks.
    """
    forecast = Taylor(order, basis, since=warmup - 1)
    when = First(warmup) | Every(interval)
    policy = Policy(when, Attention() | MLP(), forecast) if granularity == "module" else Policy(when, Stack(), Residual(forecast))
    options = {"interval": interval, "warmup": warmup, "order": order, "basis": basis, "granularity": granularity}
    return Plan("taylorseer", (policy,), options)
