"""LTX-Video, the first of its family."""

from __future__ import annotations

import torch
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny


def _ltx_video(d: Draw, batch: int) -> Inputs:
    return {
        "hidden_states": d.normal(batch, 32, 4),
        "encoder_hidden_states": d.normal(batch, 6, 12),
        "encoder_attention_mask": torch.ones(batch, 6, dtype=torch.bool),
        "timestep": torch.full((batch,), 1000.0),
        "num_frames": 2,
        "height": 4,
        "width": 4,
        "rope_interpolation_scale": (8 / 25, 32, 32),
    }


DENOISERS["LTXVideoTransformer3DModel"] = Tiny(
    {
        "in_channels": 4,
        "out_channels": 4,
        "num_layers": 2,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "cross_attention_dim": 16,
        "caption_channels": 12,
    },
    _ltx_video,
)
