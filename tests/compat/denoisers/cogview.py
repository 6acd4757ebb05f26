"""CogView3+ and CogView4."""

from __future__ import annotations

import torch
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny

_COGVIEW = {
    "patch_size": 2,
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 2,
    "attention_head_dim": 8,
    "num_attention_heads": 2,
    "text_embed_dim": 12,
    "time_embed_dim": 16,
    "condition_dim": 4,
    "pos_embed_max_size": 8,
    "sample_size": 8,
}


def _cogview(d: Draw, batch: int) -> Inputs:
    return {
        "hidden_states": d.normal(batch, 4, 8, 8),
        "encoder_hidden_states": d.normal(batch, 6, 12),
        "timestep": torch.full((batch,), 1000),
        "original_size": torch.full((batch, 2), 64.0),
        "target_size": torch.full((batch, 2), 64.0),
        "crop_coords": torch.zeros(batch, 2),
    }


DENOISERS["CogView3PlusTransformer2DModel"] = Tiny(_COGVIEW, _cogview)
DENOISERS["CogView4Transformer2DModel"] = Tiny(_COGVIEW, _cogview)
