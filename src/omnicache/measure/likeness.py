"""How like pictures or clips are to the uncached ones, one by one."""

from __future__ import annotations

import torch
from torch import Tensor

from omnicache.measure.psnr import psnr

EQUAL = 100.0
"""PSNR in dB of pictures that are the same, which would make every mean infinite."""
ALIKE = 30.0
"""PSNR in dB from which on pictures are hard to tell apart, side by side; below it people can."""


def likeness(made: Tensor, base: Tensor) -> Tensor:
    """PSNR of each in dB, ``(n,)``, of clips the mean over their frames: from 0, also of what holds values that are no numbers, to
    :data:`EQUAL`. Shapes ``(n, 3, h, w)`` or ``(n, f, 3, h, w)``, in [0, 1]."""
    each = psnr(made.flatten(0, -4), base.flatten(0, -4)).nan_to_num(0.0).clamp(0.0, EQUAL)
    return each.view(len(made), -1).mean(1)


def shown(made: Tensor) -> Tensor:
    """As they would be shown: values that are no numbers are black, as those of a failed run."""
    return made if bool(torch.isfinite(made).all()) else made.nan_to_num(0.0, 0.0, 0.0)
