"""What the metrics ask of their arguments."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from omnicache.errors import OmniCacheError


def check_pictures(a: Any, b: Any) -> tuple[Tensor, Tensor]:
    """Both as pictures ``(n, 3, h, w)`` in [0, 1]; Pillow images, and lists of them, are converted.

    Raises:
        OmniCacheError: one is something else, or they differ in shape.
    """
    a, b = _tensor(a), _tensor(b)
    if a.ndim != 4 or a.shape[1] != 3:
        raise OmniCacheError(f"pictures have the shape (n, 3, h, w), these have {tuple(a.shape)}")
    if a.shape != b.shape:
        raise OmniCacheError(f"the pictures differ in shape: {tuple(a.shape)} and {tuple(b.shape)}")
    return a, b


def _tensor(given: Any) -> Tensor:
    if isinstance(given, Tensor):
        return given
    images = list(given) if isinstance(given, (list, tuple)) else [given]
    if not images or not all(hasattr(one, "convert") and hasattr(one, "tobytes") for one in images):
        raise OmniCacheError(
            f"pictures are a tensor (n, 3, h, w) in [0, 1] or Pillow images, not {type(given).__name__}; "
            'draw with pipe(..., output_type="pt").images'
        )
    if len({one.size for one in images}) > 1:
        raise OmniCacheError(f"the pictures differ in size: {', '.join(str(one.size) for one in images)}")
    width, height = images[0].size
    rows = [torch.frombuffer(bytearray(one.convert("RGB").tobytes()), dtype=torch.uint8) for one in images]
    return torch.stack(rows).view(-1, height, width, 3).permute(0, 3, 1, 2) / 255


def check_features(a: Tensor, b: Tensor) -> None:
    """Raise unless both are features ``(n, d)`` of one width."""
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or not len(a) or not len(b):
        raise OmniCacheError(f"features have the shape (n, d) with one d, these have {tuple(a.shape)} and {tuple(b.shape)}")


def torchmetrics(module: str) -> ModuleType:
    """Import a module of torchmetrics, or say how to get it."""
    try:
        return import_module(f"torchmetrics.{module}")
    except ImportError as missing:
        raise OmniCacheError("this metric is computed by torchmetrics; run: pip install torchmetrics") from missing
