from __future__ import annotations

from typing import Annotated

from omnicache.correctors import PriorNoise
from omnicache.errors import OmniCacheError
from omnicache.granularity import Encoder
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.predictors import Hold
from omnicache.registry import Range, method
from omnicache.triggers import Every, First, Steps

FIFTY = (0, 1, 2, 3, 5, 10, 15, 25, 35)
LISTS = Steps(
    FIFTY,
    50,
    (
        Steps((*FIFTY, 45, 55, 65), 75),
        Steps(tuple(i for i in range(100) if i < 10 or i > 85 or i % 5 == 0), 100),
    ),
)
"""The released key steps for 50, 75 and 100 steps; other runs scale the first."""


@method(
    "faster-diffusion",
    paper="Faster Diffusion: Rethinking the Role of the Encoder for Diffusion Model Inference (arXiv 2312.09608)",
    axes={"when": "by a list of key steps", "where": "the encoder of a U-Net", "how": "hold", "fix": "prior noise"},
    architectures="U-Nets with skip connections",
    off={"interval": 1, "noise": 0.0},
    sweep={"interval": (2, 3, 4, 6)},
)
def faster_diffusion(
    keys: tuple[Annotated[int, Range(0)], ...] = (),
    interval: Annotated[int, Range(0, 1000)] = 0,
    noise: Annotated[float, Range(0, 1)] = 0.003,
    parallel: Annotated[int, Range(0, 1000)] = 0,
) -> Plan:
    """Runs the encoder of a U-Net at a few key steps, and at all others the decoder alone on what the encoder gave.

    Args:
        keys: numbers of the key steps, the first being 0; by default the released lists for 50, 75 and 100 steps, and of other runs
            that for 50, scaled. For DeepFloyd-IF the paper adds step 40.
        interval: in place of a list, one key step in so many. The authors advise 4 for models of others.
        noise: so much of the first latents is added to those of the late half before each step of the sampler, also where every
            step is a key step; 0 for none.
        parallel: the decoder's passes up to the next key step are run at once, at most so many in a batch; 0 one by one. The
            pictures are the same.
    """
    if keys and interval:
        raise OmniCacheError("faster-diffusion takes a list of key steps or an interval, not both: leave out `keys` or `interval`.")
    when = First(1) | (Every(interval, phase=0) if interval else Steps(keys) if keys else LISTS)
    policy = Policy(when, Encoder(), Hold(), fix=PriorNoise(noise) if noise else None, ahead=parallel)
    return Plan("faster-diffusion", (policy,), {"keys": keys, "interval": interval, "noise": noise, "parallel": parallel})
