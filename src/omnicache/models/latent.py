from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

IDS = ("img_ids", "image_ids")
"""What models of packed latents call the places of their tokens, ``(tokens, 3)``: time, row, column."""


@dataclass(frozen=True)
class Latent:
    """What a denoiser was given, as a picture or film.

    Attributes:
        batch: pictures or films; of guidance in one call, both halves.
        frames: 1 for pictures.
        height, width: in whatever unit the model was given them.
        text: tokens of the condition, which some models put before those of the picture.
        guided: whether both halves of the batch hold the same latents, as in guidance in one call.
    """

    batch: int
    frames: int
    height: int
    width: int
    text: int = 0
    guided: bool = False


def latent_of(model: nn.Module, bound: Mapping[str, Any]) -> Latent | None:
    """The latent among a denoiser's arguments; None if there is none of a known form. Looks at values, once in a run."""
    x = _given(bound)
    if x is None:
        return None
    context = bound.get("encoder_hidden_states")
    text = context.shape[1] if isinstance(context, torch.Tensor) and context.ndim == 3 else 0
    if x.ndim == 3:
        size = _packed(bound, x.shape[1])
        return None if size is None else Latent(x.shape[0], *size, text, _guided(x))
    frames = 1 if x.ndim == 4 else x.shape[3 - _channels_at(model, x)]
    return Latent(x.shape[0], frames, x.shape[-2], x.shape[-1], text, _guided(_noisy(model, x)))


def doubled_rows(model: nn.Module, bound: Mapping[str, Any]) -> int:
    """Rows of a denoiser's batch if both of its halves hold the same latents, as in guidance in one call; else 0. Looks at values,
    once in a run."""
    x = _given(bound)
    return len(x) if x is not None and _guided(x if x.ndim == 3 else _noisy(model, x)) else 0


def _given(bound: Mapping[str, Any]) -> torch.Tensor | None:
    """The latents among a denoiser's arguments."""
    x = next((v for n in ("hidden_states", "sample", "x", "latents") if isinstance(v := bound.get(n), torch.Tensor)), None)
    if x is None:
        x = next((v for v in bound.values() if isinstance(v, torch.Tensor) and v.ndim >= 3 and v.is_floating_point()), None)
    return x if x is not None and x.ndim in (3, 4, 5) else None


def _channels_at(model: nn.Module, x: torch.Tensor) -> int:
    told = getattr(model, "config", None)
    channels, length = getattr(told, "in_channels", None), getattr(told, "num_frames", None)
    return 2 if x.ndim == 5 and x.shape[2] == channels and (x.shape[1] != channels or x.shape[1] == length) else 1


def _noisy(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Latents without the conditions that may be joined to them, and differ between the halves."""
    at, noisy = _channels_at(model, x), getattr(getattr(model, "config", None), "out_channels", None)
    return x if not isinstance(noisy, int) else x.narrow(at, 0, min(noisy, x.shape[at]))


def _packed(bound: Mapping[str, Any], tokens: int) -> tuple[int, int, int] | None:
    """Frames, height and width of latents that come as a row of tokens."""
    told = [bound.get(n) for n in ("num_frames", "height", "width")]
    if all(isinstance(n, int) for n in told) and math.prod(told) == tokens:  # type: ignore[arg-type]
        return told[0], told[1], told[2]  # type: ignore[return-value]
    places = next((v for n in IDS if isinstance(v := bound.get(n), torch.Tensor)), None)
    if places is not None and places.shape[-1] >= 3 and places.shape[-2] == tokens:
        flat = places.reshape(-1, places.shape[-1])
        frames, height, width = (int(n) + 1 for n in (flat[:, :3].amax(0) - flat[:, :3].amin(0)).tolist())
        if frames * height * width == tokens:
            return frames, height, width
    return None


def _guided(x: torch.Tensor) -> bool:
    if x.shape[0] % 2:
        return False
    a, b = x.chunk(2)
    return torch.equal(a, b)
