from __future__ import annotations

from typing import Annotated

from omnicache.granularity import MLP, Attention, Stack
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.predictors import Foca, Residual
from omnicache.registry import Choice, Range, method
from omnicache.triggers import Every, First


@method(
    "foca",
    paper="FoCa: Forecast then Calibrate (arXiv 2508.16211)",
    axes={
        "when": "the first steps, then every n-th",
        "where": "attention and MLP, or the stack",
        "how": "BDF2, Heun",
        "fix": "-",
    },
    architectures="transformers",
    off={"interval": 1},
    sweep={"interval": (2, 3, 4, 5, 7)},
)
def foca(
    interval: Annotated[int, Range(1, 1000)] = 5,
    warmup: Annotated[int, Range(1, 1000)] = 3,
    slope: Annotated[str, Choice(("three-point", "two-point"))] = "three-point",
    granularity: Annotated[str, Choice(("module", "stack"))] = "stack",
) -> Plan:
    """Forecasts features as the solution of an ordinary differential equation, and corrects the forecast once.

    Args:
        interval, warmup, granularity: as in taylorseer.
        slope: our readings of what the paper leaves open; with "two-point" it is a straight line through two values.
    """
    when, forecast = First(warmup) | Every(interval), Foca(slope)
    policy = Policy(when, Attention() | MLP(), forecast) if granularity == "module" else Policy(when, Stack(), Residual(forecast))
    options = {"interval": interval, "warmup": warmup, "slope": slope, "granularity": granularity}
    return Plan("foca", (policy,), options)
