"""Pictures and clips as files inside the page. A picture is a clip of one frame."""

from __future__ import annotations

import io
from base64 import b64encode
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from omnicache.errors import OmniCacheError
from omnicache.report._need import need

BUDGET = 1_700_000  # characters of pictures in one page
BUDGET_OF_CLIPS = 8_000_000
SIDES = (256, 192, 160, 128, 96, 64, 48, 32)
FRAMES_A_SECOND = 8
WIDEST = 16383  # pixels of a WebP


def to_image(picture: Tensor) -> Any:
    """A Pillow image of one picture ``(3, h, w)`` in [0, 1]."""
    rows = (picture.detach().float().nan_to_num(0).clamp(0, 1).cpu() * 255).round().byte().permute(1, 2, 0)
    return need("PIL.Image").fromarray(rows.contiguous().numpy())


def clips(batch: Tensor) -> Tensor:
    """Pictures ``(n, 3, h, w)`` or clips ``(n, f, 3, h, w)`` as clips."""
    return batch if batch.ndim == 5 else batch[:, None]


def check(pictures: dict[str, Tensor]) -> None:
    """Raise unless there are uncached pictures or clips and every method has such of their shape."""
    if "uncached" not in pictures:
        raise OmniCacheError('the uncached pictures are missing: pictures["uncached"]')
    shape = tuple(pictures["uncached"].shape)
    for name, batch in pictures.items():
        if batch.ndim not in (4, 5) or batch.shape[-3] != 3 or tuple(batch.shape) != shape:
            raise OmniCacheError(
                f"pictures are (n, 3, h, w) and clips (n, f, 3, h, w), of one shape; those of {name} have {tuple(batch.shape)}"
            )


def data_uris(pictures: dict[str, Tensor], most: int = 8) -> dict[str, list[str]]:
    """Up to ``most`` pictures of each name as lossless WebP, all at the largest size that keeps the page small. The frames of a
    clip stand side by side in one."""
    chosen = {name: clips(batch[:most]) for name, batch in pictures.items()}
    budget = BUDGET if chosen["uncached"].shape[1] == 1 else BUDGET_OF_CLIPS
    uris: dict[str, list[str]] = {}
    for side in SIDES:
        if side * chosen["uncached"].shape[1] > WIDEST:
            continue
        uris = {name: [_uri(clip) for clip in _shrunk(batch, side)] for name, batch in chosen.items()}
        if sum(len(uri) for batch in uris.values() for uri in batch) <= budget:
            break
    return uris


def _shrunk(batch: Tensor, side: int) -> Tensor:
    scale = side / max(batch.shape[-2:])
    if scale >= 1:
        return batch
    size = [max(1, round(length * scale)) for length in batch.shape[-2:]]
    return F.interpolate(batch.flatten(0, 1).float(), size=size, mode="area").unflatten(0, batch.shape[:2])


def _uri(clip: Tensor) -> str:
    buffer = io.BytesIO()
    to_image(clip.permute(1, 2, 0, 3).flatten(2)).save(buffer, "WEBP", lossless=True, method=4)
    return "data:image/webp;base64," + b64encode(buffer.getvalue()).decode()
