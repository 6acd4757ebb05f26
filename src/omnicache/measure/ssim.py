"""Structural similarity."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from omnicache.errors import OmniCacheError
from omnicache.measure._check import check_pictures, torchmetrics

WINDOW = 11  # pixels: the Gaussian of sigma 1.5 in Wang et al., 2004


def ssim(a: Any, b: Any) -> Tensor:
    """Structural similarity of each picture, ``(n,)``, at most 1: mean over channels and pixels.

    The window is Gaussian, 11x11 with a sigma of 1.5, around every pixel, with the picture reflected at its borders, as
    torchmetrics does it. Tools that leave the 5 pixels along the border out give slightly other figures.
    """
    a, b = check_pictures(a, b)
    if min(a.shape[2:]) < WINDOW:
        raise OmniCacheError(f"SSIM needs pictures of at least {WINDOW}x{WINDOW}, these are {a.shape[2]}x{a.shape[3]}")
    metric = torchmetrics("functional.image").structural_similarity_index_measure
    return metric(a.float(), b.float(), data_range=1.0, reduction="none", kernel_size=WINDOW, sigma=1.5).reshape(len(a))
