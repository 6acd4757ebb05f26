"""HunyuanImage 2.1."""

from __future__ import annotations

import torch
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny


def _hunyuan_image(d: Draw, batch: int) -> Inputs:
    return {
        "hidden_states": d.normal(batch, 4, 4, 4),
        "timestep": torch.full((batch,), 1000.0),
        "encoder_hidden_states": d.normal(batch, 6, 12),
        "encoder_attention_mask": torch.ones(batch, 6),
    }


DENOISERS["HunyuanImageTransformer2DModel"] = Tiny(
    {
        "in_channels": 4,
        "out_channels": 4,
        "num_attention_heads": 2,
        "attention_head_dim": 8,
        "num_layers": 2,
        "num_single_layers": 2,
        "num_refiner_layers": 2,
        "mlp_ratio": 2.0,
        "text_embed_dim": 12,
        "rope_axes_dim": (4, 4),
    },
    _hunyuan_image,
)
