"""SkyReels-V2."""

from __future__ import annotations

import torch
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny


def _skyreels(d: Draw, batch: int) -> Inputs:
    return {
        "hidden_states": d.normal(batch, 4, 2, 4, 8),
        "timestep": torch.ones(batch),
        "encoder_hidden_states": d.normal(batch, 6, 12),
        "return_dict": False,
    }


DENOISERS["SkyReelsV2Transformer3DModel"] = Tiny(
    {
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "in_channels": 4,
        "out_channels": 4,
        "text_dim": 12,
        "freq_dim": 16,
        "ffn_dim": 32,
        "num_layers": 2,
        "rope_max_seq_len": 32,
    },
    _skyreels,
)
