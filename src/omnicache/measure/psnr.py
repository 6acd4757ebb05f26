"""Peak signal-to-noise ratio."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from omnicache.measure._check import check_pictures, torchmetrics


def psnr(a: Any, b: Any) -> Tensor:
    """Peak signal-to-noise ratio of each picture in dB, ``(n,)``; infinite where two pictures are equal."""
    a, b = check_pictures(a, b)
    metric = torchmetrics("functional.image").peak_signal_noise_ratio
    return metric(a.float(), b.float(), data_range=1.0, reduction="none", dim=(1, 2, 3))
