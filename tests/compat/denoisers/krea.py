"""Krea 2."""

from __future__ import annotations

import torch
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny


def _krea2(d: Draw, batch: int) -> Inputs:
    on_grid = torch.cartesian_prod(torch.zeros(1), torch.arange(4.0), torch.arange(4.0))
    return {
        "hidden_states": d.normal(batch, 16, 4),
        "encoder_hidden_states": d.normal(batch, 6, 3, 12),
        "timestep": torch.ones(batch),
        "position_ids": torch.cat([torch.zeros(6, 3), on_grid]),
        "encoder_attention_mask": torch.ones(batch, 6, dtype=torch.bool),
    }


DENOISERS["Krea2Transformer2DModel"] = Tiny(
    {
        "in_channels": 4,
        "num_layers": 2,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "intermediate_size": 32,
        "timestep_embed_dim": 16,
        "text_hidden_dim": 12,
        "num_text_layers": 3,
        "text_num_attention_heads": 2,
        "text_num_key_value_heads": 2,
        "text_intermediate_size": 16,
        "num_layerwise_text_blocks": 2,
        "num_refiner_text_blocks": 2,
        "axes_dims_rope": (4, 2, 2),
    },
    _krea2,
    start=1.0,
)
