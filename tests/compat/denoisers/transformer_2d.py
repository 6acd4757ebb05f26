"""The class that DiT and PixArt were instances of, and that U-Nets hold."""

from __future__ import annotations

import torch
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny


def _patches(d: Draw, batch: int) -> Inputs:
    return {
        "hidden_states": d.normal(batch, 4, 8, 8),
        "encoder_hidden_states": d.normal(batch, 5, 12),
        "encoder_attention_mask": torch.ones(batch, 5),
        "timestep": torch.ones(batch, dtype=torch.long),
        "added_cond_kwargs": {"resolution": None, "aspect_ratio": None},
    }


DENOISERS["Transformer2DModel"] = Tiny(
    {
        "num_attention_heads": 2,
        "attention_head_dim": 8,
        "in_channels": 4,
        "out_channels": 8,
        "num_layers": 3,
        "sample_size": 8,
        "patch_size": 2,
        "cross_attention_dim": 16,
        "caption_channels": 12,
        "norm_type": "ada_norm_single",
        "norm_elementwise_affine": False,
    },
    _patches,
)
