"""What the metrics ask of their arguments."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from torch import Tensor

from omnicache.errors import OmniCacheError


def check_pictures(a: Tensor, b: Tensor) -> None:
    """Raise unless both are pictures ``(n, 3, h, w)`` of one shape."""
    if a.ndim != 4 or a.shape[1] != 3:
        raise OmniCacheError(f"pictures have the shape (n, 3, h, w), these have {tuple(a.shape)}")
    if a.shape != b.shape:
        raise OmniCacheError(f"the pictures differ in shape: {tuple(a.shape)} and {tuple(b.shape)}")


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
