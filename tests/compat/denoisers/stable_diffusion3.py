"""Stable Diffusion 3.5: the first blocks have two attentions each, the last one drops the text."""

from __future__ import annotations

import torch
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny


def _stable_diffusion3(d: Draw, batch: int) -> Inputs:
    return {
        "hidden_states": d.normal(batch, 4, 8, 8),
        "encoder_hidden_states": d.normal(batch, 6, 12),
        "pooled_projections": d.normal(batch, 12),
        "timestep": torch.full((batch,), 1000.0),
    }


DENOISERS["SD3Transformer2DModel"] = Tiny(
    {
        "sample_size": 8,
        "patch_size": 2,
        "in_channels": 4,
        "out_channels": 4,
        "num_layers": 4,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "joint_attention_dim": 12,
        "caption_projection_dim": 16,
        "pooled_projection_dim": 12,
        "pos_embed_max_size": 8,
        "dual_attention_layers": (0, 1),
        "qk_norm": "rms_norm",
    },
    _stable_diffusion3,
)
