from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


def text_keys(attention: nn.Module, bound: Mapping[str, Any], value: torch.Tensor) -> torch.Tensor | None:
    """Which keys of a joint attention are those of the text, ``(keys,)`` bool; None if it is given no text, or nothing tells.

    Models join text and picture in either order. Values are told by their first row, which is neither normed nor turned.

    Args:
        attention: the module.
        bound: its arguments by name.
        value: what it attends to, ``(batch, heads, keys, width)``.
    """
    text, picture = bound.get("encoder_hidden_states"), bound.get("hidden_states")
    project = getattr(attention, "add_v_proj", None) or getattr(attention, "to_v", None)
    if not isinstance(text, torch.Tensor) or not isinstance(picture, torch.Tensor) or text.ndim != 3 or project is None:
        return None
    length, total = text.shape[1], value.shape[2]
    if not length or total != length + picture.shape[1]:
        return None
    first = project(text[:1, :1]).flatten()
    for start in (0, total - length):
        if value[0, :, start].numel() == first.numel() and torch.allclose(
            value[0, :, start].flatten(), first, rtol=1e-2, atol=1e-4
        ):
            places = torch.arange(total, device=value.device)
            return (places >= start) & (places < start + length)
    return None
