from __future__ import annotations

from typing import Annotated, Any

import torch

from omnicache.policy import Corrector, Sampling, value
from omnicache.runtime.store import own
from omnicache.schema import Range


@value
class PriorNoise(Corrector):
    """Adds a little of the noise that a run began with to its latents before each late step of the sampler (FasterDiffusion,
    arXiv 2312.09608), for the texture that reused features lose. Computed steps get it, too.

    Attributes:
        share: of the first latents, the paper's alpha.
        below: from which time on, 1 being pure noise.
    """

    share: Annotated[float, Range(0, 1)] = 0.003
    below: Annotated[float, Range(0, 1)] = 0.5

    def sample(self, state: Any, given: Sampling) -> tuple[torch.Tensor, torch.Tensor, Any]:
        """The state is the first latents, those of unit variance."""
        if state is None or state.shape != given.sample.shape:
            state = own((given.sample / given.spread,))[0]
        if given.time >= self.below or not self.share:
            return given.output, given.sample, state
        return given.output, given.sample + self.share * given.spread * state, state
