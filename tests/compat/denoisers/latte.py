"""Latte: a spatial block and a temporal one take turns."""

from __future__ import annotations

import torch
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny


def _latte(d: Draw, batch: int) -> Inputs:
    return {
        "hidden_states": d.normal(batch, 4, 3, 8, 8),
        "encoder_hidden_states": d.normal(batch, 6, 12),
        "timestep": torch.full((batch,), 1000),
        "enable_temporal_attentions": True,
    }


DENOISERS["LatteTransformer3DModel"] = Tiny(
    {
        "sample_size": 8,
        "patch_size": 2,
        "in_channels": 4,
        "out_channels": 8,
        "num_layers": 2,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "cross_attention_dim": 16,
        "caption_channels": 12,
        "attention_bias": True,
        "activation_fn": "gelu-approximate",
        "norm_type": "ada_norm_single",
        "norm_elementwise_affine": False,
        "norm_eps": 1e-6,
        "num_embeds_ada_norm": 1000,
        "video_length": 3,
    },
    _latte,
)
