from __future__ import annotations

import math
from typing import Annotated, Any

import torch

from omnicache.policy import Corrector, Sampling, value
from omnicache.schema import Range


@value
class NoiseScaling(Corrector):
    """Multiplies the predicted noise by a number that falls along the run, at every step (FEB-Cache, against exposure bias).

    At the sampler, so once for all guidance passes: scaling each of them alike is scaling what guidance makes of them.

    Attributes:
        early: what the factor falls to while the time is above ``theta``; it begins with 1.
        late: what it falls towards below that.
        theta: where the stages meet, a time between 0 and 1, pure noise.
        factor: one number for all steps in place of the curve.
    """

    early: Annotated[float, Range(0.5, 1.5)] = 0.98
    late: Annotated[float, Range(0.5, 1.5)] = 0.96
    theta: Annotated[float, Range(0, 0.99)] = 0.4
    factor: Annotated[float | None, Range(0.5, 1.5)] = None

    def at(self, time: float) -> float:
        """The factor at a time: the paper's b(t)."""
        if self.factor is not None:
            return self.factor
        if time >= self.theta:
            return self.early + (1 - self.early) * math.exp(-5 * (1 - time) / (1 - self.theta))
        return self.late + (self.early - self.late) * math.exp(5 * (time - self.theta) / (1 - self.theta))

    def sample(self, state: Any, given: Sampling) -> tuple[torch.Tensor, torch.Tensor, Any]:
        output, channels, by = given.output, given.sample.shape[1], self.at(given.time)
        if output.ndim > 3 and output.shape[1] == 2 * channels:  # the variance beside the noise stays
            return torch.cat((output[:, :channels] * by, output[:, channels:]), 1), given.sample, state
        return output * by, given.sample, state
