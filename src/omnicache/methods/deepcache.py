from __future__ import annotations

from typing import Annotated

from omnicache.granularity import Deep
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.predictors import Hold
from omnicache.registry import Range, method
from omnicache.triggers import Every, First


@method(
    "deepcache",
    paper="DeepCache: Accelerating Diffusion Models for Free (arXiv 2312.00858)",
    axes={"when": "every n-th step", "where": "the deep part of a U-Net", "how": "hold", "fix": "-"},
    architectures="U-Nets with skip connections",
    off={"interval": 1},
)
def deepcache(interval: Annotated[int, Range(1, 1000)] = 3, branch: Annotated[int, Range(0, 100)] = 0) -> Plan:
    """Runs the whole U-Net every ``interval`` steps, and in between only the layers above skip connection ``branch``.

    Args:
        interval: the paper's N; the first step of a run is always a whole one.
        branch: skip connections counted from the outermost, 0 being the cheapest.
    """
    policy = Policy(First(1) | Every(interval, phase=0), Deep(branch), Hold())
    return Plan("deepcache", (policy,), {"interval": interval, "branch": branch})
