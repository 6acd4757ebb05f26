from __future__ import annotations

from typing import Annotated

from omnicache.granularity import Denoiser
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.predictors import Hold, Residual
from omnicache.registry import Range, method
from omnicache.triggers import First, Last, Responds


@method(
    "easycache",
    paper="Less is Enough: Training-Free Video Diffusion Acceleration via Runtime-Adaptive Caching (arXiv 2507.02860)",
    axes={"when": "expected change of the output", "where": "denoiser", "how": "hold the increment", "fix": "-"},
    architectures="any whose output has the shape of its latent",
    off={"threshold": float("-inf")},
    presets={
        "HunyuanVideoTransformer3DModel": {"threshold": 0.025, "warmup": 5},
        "WanTransformer3DModel": {"threshold": 0.05, "warmup": 10},
    },
    sweep={"threshold": (0.05, 0.1, 0.2, 0.5, 1.0)},
)
def easycache(
    threshold: float = 0.05,
    warmup: Annotated[int, Range(1, 1000)] = 5,
    tail: Annotated[int, Range(0, 1000)] = 1,
) -> Plan:
    """Skips the whole model while its output is expected to change little, as told by how it answered to the last changes.

    What is kept is as large as the latents, whatever the model; nothing is calibrated.

    Args:
        threshold: expected relative change of the output since it was last computed.
        warmup, tail: computed steps at the start and at the end.
    """
    when = First(warmup) | Last(tail) | Responds(threshold)
    options = {"threshold": threshold, "warmup": warmup, "tail": tail}
    return Plan("easycache", (Policy(when, Denoiser(), Residual(Hold())),), options)
