from __future__ import annotations

from typing import Annotated

from omnicache.granularity import Guidance
from omnicache.plan import Plan
from omnicache.policy import Policy, Trigger
from omnicache.predictors import Bands, Residual
from omnicache.registry import Range, method
from omnicache.triggers import Between, Every, First, Last

Share = Annotated[float, Range(0, 1)]
Factor = Annotated[float, Range(0, 10)]


@method(
    "cfg-cache",
    paper="FasterCache: Training-Free Video Diffusion Model Acceleration with High Quality, section 3.3 (arXiv 2410.19355)",
    axes={"when": "early, then every n-th step", "where": "guidance", "how": "hold the difference, in two bands", "fix": "-"},
    architectures="any model under classifier-free guidance",
    off={"interval": 1},
    sweep={"interval": (2, 3, 5, 8)},
)
def cfg_cache(
    start: Share = 0.34,
    interval: Annotated[int, Range(1, 1000)] = 5,
    phase: Annotated[int, Range(0, 1000)] = 4,
    last: Annotated[int, Range(0, 1000)] = 0,
    low: Factor = 1.1,
    high: Factor = 1.1,
    low_until: Share = 0.88,
    high_from: Share = 0.88,
    radius: Annotated[float, Range(0, 0.5)] = 0.2,
    compound: bool = False,
) -> Plan:
    """Works the unconditional output out from the conditional one of the same step, and what lay between them when both last ran.

    The defaults are the released ones for Latte with 50 steps.

    Args:
        start: the share of the run in which both branches are computed at every step.
        interval, phase: from then on both are computed at steps whose number (0 is the first) leaves ``phase`` when divided.
        last: so many steps at the end are computed.
        low, high: what the low and the high frequencies of the difference are multiplied by; 1 holds them.
        low_until, high_from: shares of the run: low ones are multiplied before, high ones from there on.
        radius: of the low frequencies, as a share of the shorter side.
        compound: as released, the factors multiply over reused steps in a row; False is the paper's formula.
    """
    options = dict(locals())
    when: Trigger = First(1) | Every(interval, phase % interval)
    when = when | Between(0.0, start) if start else when
    when = when | Last(last) if last else when
    how = Residual(Bands(low, high, low_until, high_from, radius, compound))
    return Plan("cfg-cache", (Policy(when, Guidance(), how),), options)
