"""ChronoEdit: Wan with two frames that are far apart."""

from __future__ import annotations

import torch
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny


def _chrono_edit(d: Draw, batch: int) -> Inputs:
    return {
        "hidden_states": d.normal(batch, 4, 2, 8, 8),
        "timestep": torch.full((batch,), 1000.0),
        "encoder_hidden_states": d.normal(batch, 6, 12),
    }


DENOISERS["ChronoEditTransformer3DModel"] = Tiny(
    {
        "in_channels": 4,
        "out_channels": 4,
        "num_layers": 2,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "text_dim": 12,
        "freq_dim": 16,
        "ffn_dim": 32,
        "rope_max_seq_len": 16,
    },
    _chrono_edit,
)
