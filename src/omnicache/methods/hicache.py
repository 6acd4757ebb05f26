from __future__ import annotations

from typing import Annotated

from omnicache.granularity import MLP, Attention, Stack
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.predictors import Hermite, Residual
from omnicache.registry import Choice, Range, method
from omnicache.triggers import Every, First


@method(
    "hicache",
    paper="HiCache: Hermite polynomial-based feature caching",
    axes={"when": "the first steps, then every n-th", "where": "attention and MLP, or the stack", "how": "Hermite", "fix": "-"},
    architectures="transformers",
    off={"interval": 1},
    sweep={"interval": (2, 3, 4, 5, 7)},
)
def hicache(
    interval: Annotated[int, Range(1, 1000)] = 6,
    warmup: Annotated[int, Range(1, 1000)] = 3,
    order: Annotated[int, Range(0, 6)] = 2,
    sigma: Annotated[float, Range(0.01, 1.0)] = 0.5,
    basis: Annotated[str, Choice(("hermite", "damped"))] = "hermite",
    granularity: Annotated[str, Choice(("module", "stack"))] = "stack",
) -> Plan:
    """Forecasts features as TaylorSeer does, under Hermite polynomials that grow less.

    Args:
        interval, warmup, granularity: as in taylorseer.
        order: of the forecast.
        sigma: scale of the polynomials; 1 / sqrt(2) with ``order=1`` is TaylorSeer, smaller ones damp.
        basis: "damped" is the paper's ablation, Taylor's polynomials so scaled.
    """
    forecast = Hermite(order, basis, since=warmup - 1, sigma=sigma)
    when = First(warmup) | Every(interval)
    policy = Policy(when, Attention() | MLP(), forecast) if granularity == "module" else Policy(when, Stack(), Residual(forecast))
    options = {"interval": interval, "warmup": warmup, "order": order, "sigma": sigma, "basis": basis}
    return Plan("hicache", (policy,), {**options, "granularity": granularity})
