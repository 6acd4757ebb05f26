"""AuraFlow."""

from __future__ import annotations

import torch
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny


def _aura_flow(d: Draw, batch: int) -> Inputs:
    return {
        "hidden_states": d.normal(batch, 4, 8, 8),
        "encoder_hidden_states": d.normal(batch, 6, 12),
        "timestep": torch.ones(batch),
    }


DENOISERS["AuraFlowTransformer2DModel"] = Tiny(
    {
        "sample_size": 8,
        "patch_size": 2,
        "in_channels": 4,
        "out_channels": 4,
        "num_mmdit_layers": 2,
        "num_single_dit_layers": 2,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "joint_attention_dim": 12,
        "caption_projection_dim": 16,
        "pos_embed_max_size": 16,
    },
    _aura_flow,
    start=1.0,
)
