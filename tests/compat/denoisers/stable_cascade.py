"""Stable Cascade."""

from __future__ import annotations

import torch
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny


def _prior(d: Draw, batch: int) -> Inputs:
    return {
        "sample": d.normal(batch, 4, 8, 8),
        "timestep_ratio": torch.ones(batch),
        "clip_text_pooled": d.normal(batch, 1, 12),
        "clip_text": d.normal(batch, 5, 12),
        "clip_img": d.normal(batch, 1, 12),
    }


DENOISERS["StableCascadeUNet"] = Tiny(
    {
        "in_channels": 4,
        "out_channels": 4,
        "timestep_ratio_embedding_dim": 8,
        "conditioning_dim": 16,
        "block_out_channels": (16, 16),
        "num_attention_heads": (2, 2),
        "down_num_layers_per_block": (2, 2),
        "up_num_layers_per_block": (2, 2),
        "switch_level": (False,),
        "clip_text_in_channels": 12,
        "clip_text_pooled_in_channels": 12,
        "clip_image_in_channels": 12,
    },
    _prior,
    moving="sample",
    time="timestep_ratio",
    start=1.0,
)
