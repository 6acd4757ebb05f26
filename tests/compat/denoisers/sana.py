"""Sana, for images."""

from __future__ import annotations

import torch
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny


def _sana(d: Draw, batch: int) -> Inputs:
    return {
        "hidden_states": d.normal(batch, 4, 4, 4),
        "encoder_hidden_states": d.normal(batch, 6, 12),
        "encoder_attention_mask": torch.ones(batch, 6, dtype=torch.long),
        "timestep": torch.full((batch,), 1000.0),
    }


DENOISERS["SanaTransformer2DModel"] = Tiny(
    {
        "sample_size": 4,
        "patch_size": 1,
        "in_channels": 4,
        "out_channels": 4,
        "num_layers": 2,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "num_cross_attention_heads": 2,
        "cross_attention_head_dim": 8,
        "cross_attention_dim": 16,
        "caption_channels": 12,
    },
    _sana,
)
