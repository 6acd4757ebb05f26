"""SANA-Video."""

from __future__ import annotations

import torch
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny


def _sana_video(d: Draw, batch: int) -> Inputs:
    return {
        "hidden_states": d.normal(batch, 4, 2, 4, 8),
        "encoder_hidden_states": d.normal(batch, 6, 12),
        "encoder_attention_mask": torch.ones(batch, 6),
        "timestep": torch.ones(batch),
        "return_dict": False,
    }


DENOISERS["SanaVideoTransformer3DModel"] = Tiny(
    {
        "in_channels": 4,
        "out_channels": 4,
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "num_layers": 2,
        "num_cross_attention_heads": 2,
        "cross_attention_head_dim": 12,
        "cross_attention_dim": 24,
        "caption_channels": 12,
        "mlp_ratio": 2.0,
        "sample_size": 8,
        "rope_max_seq_len": 32,
    },
    _sana_video,
)
