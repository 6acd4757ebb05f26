"""Motif-Video."""

from __future__ import annotations

import torch
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny


def _motif(d: Draw, batch: int) -> Inputs:
    return {
        "hidden_states": d.normal(batch, 9, 2, 4, 8),
        "timestep": torch.ones(batch),
        "encoder_hidden_states": d.normal(batch, 6, 12),
        "encoder_attention_mask": torch.ones(batch, 6, dtype=torch.bool),
        "return_dict": False,
    }


# two blocks with both streams, two with one, and two decoder blocks that begin again at the embedded latents
DENOISERS["MotifVideoTransformer3DModel"] = Tiny(
    {
        "in_channels": 9,
        "out_channels": 4,
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "num_layers": 2,
        "num_single_layers": 4,
        "num_decoder_layers": 2,
        "mlp_ratio": 2.0,
        "patch_size": 2,
        "patch_size_t": 1,
        "text_embed_dim": 12,
        "rope_axes_dim": (4, 4, 4),
        "enable_text_cross_attention_dual": True,
        "enable_text_cross_attention_single": True,
    },
    _motif,
)
