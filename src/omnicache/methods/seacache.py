from __future__ import annotations

from typing import Annotated

from omnicache.granularity import Stack
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.predictors import Residual, Taylor
from omnicache.registry import Choice, Range, method
from omnicache.signals import ContentChange
from omnicache.triggers import Accumulate, Every, First, Last


@method(
    "seacache",
    paper="SeaCache: Spectral-Evolution-Aware Cache for Accelerating Diffusion Models (arXiv 2602.18993)",
    axes={"when": "accumulated change of the filtered input", "where": "stack", "how": "hold the increment", "fix": "-"},
    architectures="transformers whose tokens lie in a grid",
    off={"threshold": float("-inf")},
    sweep={"threshold": (0.1, 0.2, 0.3, 0.6, 1.0)},
)
def seacache(
    threshold: float = 0.3,
    of: Annotated[str, Choice(("modulated", "latent"))] = "modulated",
    power: Annotated[float | None, Range(0)] = None,
    warmup: Annotated[int, Range(1, 1000)] = 1,
    tail: Annotated[int, Range(0, 1000)] = 1,
    longest: Annotated[int | None, Range(0, 1000)] = None,
    order: Annotated[int, Range(0, 1)] = 0,
) -> Plan:
    """Recomputes once the change of what is content and not noise, since the last computation, reaches ``threshold``.

    Args:
        threshold: relative change that is tolerated; 0.2 to 0.6 in the paper. That of the "latent" is another number.
        of: what is filtered and compared: the first block's "modulated" input, as released, or the "latent", which costs less.
        power: of the spectrum of pictures that the filter assumes; None for 2 on pictures and 3 on films.
        warmup, tail: computed steps at the start and at the end; five and none are the release's other setting.
        longest: the most reuses in a row.
        order: 1 continues the slope of the last two increments.
    """
    when = First(warmup) | Last(tail) | Accumulate(ContentChange(of=of, power=power), threshold)
    if longest is not None:
        when = when | Every(longest + 1)
    options = {"threshold": threshold, "of": of, "power": power, "warmup": warmup, "tail": tail, "longest": longest}
    return Plan("seacache", (Policy(when, Stack(), Residual(Taylor(order))),), {**options, "order": order})
