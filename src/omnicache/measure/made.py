"""What pipelines return, as pictures."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from omnicache.measure._check import _tensor


def pictures(made: Any) -> Tensor | None:
    """What a pipeline returned, tensors, arrays or Pillow images, as pictures ``(n, 3, h, w)`` or clips ``(n, f, 3, h, w)`` in
    [0, 1] on the CPU; None where that is something else: sound, latents."""
    fields = (getattr(made, word, None) for word in ("images", "frames", "videos"))
    found: Any = next((field for field in fields if field is not None), made)
    if isinstance(found, tuple) and found and not hasattr(found[0], "convert"):
        found = found[0]
    if isinstance(found, (list, tuple)) and found:
        nested = isinstance(found[0], (list, tuple))
        each = [list(one) for one in found] if nested else [list(found)]
        if all(hasattr(one, "convert") for clip in each for one in clip):
            clips = torch.stack([_tensor(clip) for clip in each])
            return clips if nested else clips[0]
    try:
        numbers = torch.as_tensor(found)
    except (TypeError, ValueError, RuntimeError):
        return None
    numbers = numbers.detach().cpu()
    numbers = numbers / 255 if numbers.dtype == torch.uint8 else numbers.float()
    if numbers.ndim in (4, 5) and numbers.shape[-3] != 3 and numbers.shape[-1] == 3:
        numbers = numbers.movedim(-1, -3)
    shown = numbers.ndim in (4, 5) and numbers.shape[-3] == 3 and numbers.numel() and bool(torch.isfinite(numbers).all())
    return numbers.clamp(0, 1) if shown and float(numbers.min()) >= -0.01 and float(numbers.max()) <= 1.01 else None
