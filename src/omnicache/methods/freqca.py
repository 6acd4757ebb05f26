from __future__ import annotations

from typing import Annotated

from omnicache.granularity import Final
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.predictors import Frequencies, Hermite, Hold
from omnicache.registry import Choice, Range, method
from omnicache.triggers import Every, First


@method(
    "freqca",
    paper="FreqCa: Accelerating Diffusion Models via Frequency-Aware Caching (arXiv 2510.08669)",
    axes={
        "when": "the first steps, then every n-th",
        "where": "what the last block hands on",
        "how": "low held, high Hermite",
        "fix": "-",
    },
    architectures="any whose tokens lie in a grid",
    off={"interval": 1},
    presets={"QwenImageTransformer2DModel": {"transform": "fft"}},
    sweep={"interval": (2, 3, 4, 6, 8)},
)
def freqca(
    interval: Annotated[int, Range(1, 1000)] = 6,
    warmup: Annotated[int, Range(1, 1000)] = 3,
    order: Annotated[int, Range(0, 6)] = 2,
    sigma: Annotated[float, Range(0.01, 1.0)] = 0.71,
    cutoff: Annotated[float, Range(0, 1)] = 0.1,
    transform: Annotated[str, Choice(("dct", "fft"))] = "dct",
) -> Plan:
    """Keeps one feature, behind the last block, and forecasts only its high frequencies; the low ones are held.

    Args:
        interval, warmup, order, sigma: of the forecast, as in hicache.
        cutoff: share of the highest frequency up to which one is low; 0 holds hardly more than the mean.
        transform: "dct" splits the grid of tokens, "fft" the tokens in their order.
    """
    how = Frequencies(Hold(), Hermite(order, since=warmup - 1, sigma=sigma), cutoff, transform)
    options = {"interval": interval, "warmup": warmup, "order": order, "sigma": sigma, "cutoff": cutoff, "transform": transform}
    return Plan("freqca", (Policy(First(warmup) | Every(interval), Final(), how),), options)
