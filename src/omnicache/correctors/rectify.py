from __future__ import annotations

from typing import Any

import torch

from omnicache.policy import Corrector, value
from omnicache.runtime.step import Step

Numbers = tuple[float, ...]


@value
class Rectify(Corrector):
    """Subtracts from a reused output the error that such outputs had in a calibration: ``slope * output + offset``
    (ERTACache, error rectification).

    The paper writes the error as a sigmoid and fits that by its tangent at 0; put in, the sigmoid cancels and a straight line is
    left.

    Attributes:
        slope, offset: per step one number, or one for each of the leading channels; None where nothing is known.
    """

    slope: tuple[Numbers | None, ...]
    offset: tuple[Numbers | None, ...]

    def for_steps(self, total: int) -> Rectify:
        n = len(self.slope)
        return Rectify(*(tuple(table[i * n // total] for i in range(total)) if n else () for table in (self.slope, self.offset)))

    def apply(self, state: Any, step: Step, estimate: torch.Tensor) -> torch.Tensor:
        a, b = (table[step.index] if step.index < len(table) else None for table in (self.slope, self.offset))
        if a is None or b is None:
            return estimate
        axis = channel_axis(estimate)
        channels = estimate.shape[axis] if len(a) == 1 else len(a)
        if len(a) != len(b) or channels > estimate.shape[axis]:
            return estimate
        shape = [-1 if i == axis else 1 for i in range(estimate.ndim)]
        slope, offset = (estimate.new_tensor(numbers).view(shape) for numbers in (a, b))
        rest = estimate.narrow(axis, channels, estimate.shape[axis] - channels)
        mean = estimate.narrow(axis, 0, channels)
        return torch.cat((mean - (slope * mean + offset), rest), axis)


def channel_axis(latents: torch.Tensor) -> int:
    """Of pictures and films ``(batch, channels, ...)`` the second, of packed tokens ``(batch, tokens, channels)`` the last."""
    return 1 if latents.ndim > 3 else latents.ndim - 1
