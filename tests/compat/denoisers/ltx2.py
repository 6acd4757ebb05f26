"""LTX-2: video and sound at once."""

from __future__ import annotations

import torch
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny

CONFIG = {
    "in_channels": 4,
    "out_channels": 4,
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "cross_attention_dim": 16,
    "audio_in_channels": 4,
    "audio_out_channels": 4,
    "audio_num_attention_heads": 2,
    "audio_attention_head_dim": 4,
    "audio_cross_attention_dim": 8,
    "num_layers": 2,
    "caption_channels": 12,
    "rope_double_precision": False,
}


def _ltx2(d: Draw, batch: int) -> Inputs:
    return {
        "hidden_states": d.normal(batch, 16, 4),
        "audio_hidden_states": d.normal(batch, 6, 4),
        "encoder_hidden_states": d.normal(batch, 6, 12),
        "audio_encoder_hidden_states": d.normal(batch, 6, 12),
        "timestep": torch.ones(batch),
        "encoder_attention_mask": torch.ones(batch, 6),
        "audio_encoder_attention_mask": torch.ones(batch, 6),
        "num_frames": 2,
        "height": 2,
        "width": 4,
        "fps": 24.0,
        "audio_num_frames": 6,
        "return_dict": False,
    }


DENOISERS["LTX2VideoTransformer3DModel"] = Tiny(CONFIG, _ltx2)
