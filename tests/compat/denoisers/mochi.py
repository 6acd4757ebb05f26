"""Mochi: the last block drops the text."""

from __future__ import annotations

import torch
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny


def _mochi(d: Draw, batch: int) -> Inputs:
    return {
        "hidden_states": d.normal(batch, 4, 2, 8, 8),
        "encoder_hidden_states": d.normal(batch, 6, 16),
        "encoder_attention_mask": torch.ones(batch, 6, dtype=torch.bool),
        "timestep": torch.full((batch,), 1000.0),
    }


DENOISERS["MochiTransformer3DModel"] = Tiny(
    {
        "patch_size": 2,
        "in_channels": 4,
        "num_layers": 3,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "pooled_projection_dim": 12,
        "text_embed_dim": 16,
        "time_embed_dim": 16,
        "max_sequence_length": 6,
    },
    _mochi,
)
