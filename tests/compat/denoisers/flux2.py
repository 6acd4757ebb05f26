"""Flux 2 and Flux 3."""

from __future__ import annotations

import torch
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny

_SIZES = {
    "in_channels": 4,
    "num_layers": 2,
    "num_single_layers": 2,
    "attention_head_dim": 8,
    "num_attention_heads": 2,
    "joint_attention_dim": 12,
    "axes_dims_rope": (2, 2, 2, 2),
}


def _ids(time: float, height: int, width: int, text: int) -> torch.Tensor:
    axes = (torch.tensor([time]), torch.arange(float(height)), torch.arange(float(width)), torch.arange(float(text)))
    return torch.cartesian_prod(*axes)


def _both(d: Draw, batch: int) -> Inputs:
    return {
        "hidden_states": d.normal(batch, 16, 4),
        "encoder_hidden_states": d.normal(batch, 6, 12),
        "timestep": torch.ones(batch),
        "img_ids": _ids(0.0, 4, 4, 1),
        "txt_ids": _ids(0.0, 1, 1, 6),
    }


def _flux2(d: Draw, batch: int) -> Inputs:
    return {**_both(d, batch), "guidance": torch.ones(batch)}


def _flux3(d: Draw, batch: int) -> Inputs:
    """With a reference image, whose tokens have blocks of their own."""
    return {**_both(d, batch), "image_cond_hidden_states": d.normal(batch, 8, 4), "image_cond_ids": _ids(10.0, 2, 4, 1)}


DENOISERS["Flux2Transformer2DModel"] = Tiny({**_SIZES, "timestep_guidance_channels": 16}, _flux2, start=1.0)
DENOISERS["Flux3Transformer2DModel"] = Tiny({**_SIZES, "cond_in_channels": 4, "timestep_channels": 16}, _flux3, start=1.0)
