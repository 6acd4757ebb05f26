"""EasyAnimate: the first blocks have weights of their own for the text, the others share them."""

from __future__ import annotations

import torch
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny


def _easyanimate(d: Draw, batch: int) -> Inputs:
    return {
        "hidden_states": d.normal(batch, 4, 2, 8, 8),
        "timestep": torch.full((batch,), 1000.0),
        "encoder_hidden_states": d.normal(batch, 6, 12),
    }


DENOISERS["EasyAnimateTransformer3DModel"] = Tiny(
    {
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "in_channels": 4,
        "out_channels": 4,
        "patch_size": 2,
        "num_layers": 4,
        "mmdit_layers": 2,
        "time_embed_dim": 16,
        "text_embed_dim": 12,
    },
    _easyanimate,
)
