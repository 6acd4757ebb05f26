"""Pictures as files inside the page."""

from __future__ import annotations

import io
from base64 import b64encode
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from omnicache.errors import OmniCacheError
from omnicache.report._need import need

BUDGET = 1_700_000  # characters of pictures in one page
SIDES = (256, 192, 160, 128, 96, 64, 48, 32)


def to_image(picture: Tensor) -> Any:
    """A Pillow image of one picture ``(3, h, w)`` in [0, 1]."""
    rows = (picture.detach().float().nan_to_num(0).clamp(0, 1).cpu() * 255).round().byte().permute(1, 2, 0)
    return need("PIL.Image").fromarray(rows.contiguous().numpy())


def check(pictures: dict[str, Tensor]) -> None:
    """Raise unless there are uncached pictures and every method has pictures of their shape."""
    if "uncached" not in pictures:
        raise OmniCacheError('the uncached pictures are missing: pictures["uncached"]')
    shape = tuple(pictures["uncached"].shape)
    for name, batch in pictures.items():
        if batch.ndim != 4 or batch.shape[1] != 3 or tuple(batch.shape) != shape:
            raise OmniCacheError(f"pictures are (n, 3, h, w) of one shape, those of {name} have {tuple(batch.shape)}")


def data_uris(pictures: dict[str, Tensor], most: int = 8) -> dict[str, list[str]]:
    """Up to ``most`` pictures of each name as lossless WebP, all at the largest size that keeps the page small."""
    chosen = {name: batch[:most] for name, batch in pictures.items()}
    uris: dict[str, list[str]] = {}
    for side in SIDES:
        uris = {name: [_uri(picture) for picture in _shrunk(batch, side)] for name, batch in chosen.items()}
        if sum(len(uri) for batch in uris.values() for uri in batch) <= BUDGET:
            break
    return uris


def _shrunk(batch: Tensor, side: int) -> Tensor:
    scale = side / max(batch.shape[-2:])
    if scale >= 1:
        return batch
    size = [max(1, round(length * scale)) for length in batch.shape[-2:]]
    return F.interpolate(batch.float(), size=size, mode="area")


def _uri(picture: Tensor) -> str:
    buffer = io.BytesIO()
    to_image(picture).save(buffer, "WEBP", lossless=True, method=4)
    return "data:image/webp;base64," + b64encode(buffer.getvalue()).decode()
