from __future__ import annotations

from typing import Annotated

from omnicache.granularity import Deep
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.predictors import Hold
from omnicache.registry import Choice, Range, method
from omnicache.triggers import Every, First, PowerLaw


@method(
    "deepcache",
    paper="DeepCache: Accelerating Diffusion Models for Free (arXiv 2312.00858)",
    axes={"when": "every n-th step", "where": "the deep part of a U-Net", "how": "hold", "fix": "-"},
    architectures="U-Nets with skip connections",
    off={"interval": 1},
    sweep={"interval": (2, 3, 4, 6, 8)},
)
def deepcache(
    interval: Annotated[int, Range(1, 1000)] = 3,
    branch: Annotated[int, Range(0, 100)] = 0,
    schedule: Annotated[str, Choice(("even", "power"))] = "even",
    power: Annotated[float, Range(1.02, 10)] = 1.4,
    center: Annotated[int, Range(0, 1000)] = 15,
) -> Plan:
    """Runs the whole U-Net every ``interval`` steps, and in between only the layers above skip connection ``branch``.

    Args:
        interval: the paper's N; the first step of a run is always a whole one.
        branch: skip connections counted from the outermost, 0 being the cheapest.
        schedule: "power" is the paper's non-uniform one: as many whole steps, closest to each other at step ``center``.
        power, center: of that schedule; the paper's for Stable Diffusion 1.5 at 50 steps, with ``interval=5``.
    """
    when = First(1) | (PowerLaw(interval, power, center) if schedule == "power" else Every(interval, phase=0))
    options = {"interval": interval, "branch": branch, "schedule": schedule, "power": power, "center": center}
    return Plan("deepcache", (Policy(when, Deep(branch), Hold()),), options)
