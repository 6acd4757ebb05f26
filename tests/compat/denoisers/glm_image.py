"""GLM-Image."""

from __future__ import annotations

import torch
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny


def _glm(d: Draw, batch: int) -> Inputs:
    return {
        "hidden_states": d.normal(batch, 4, 8, 8),
        "encoder_hidden_states": d.normal(batch, 6, 12),
        "prior_token_id": d.ints(16, batch, 16),
        "prior_token_drop": torch.zeros(batch, 16, dtype=torch.bool),
        "timestep": torch.full((batch,), 1000.0),
        "target_size": torch.full((batch, 2), 64.0),
        "crop_coords": torch.zeros(batch, 2),
    }


DENOISERS["GlmImageTransformer2DModel"] = Tiny(
    {
        "patch_size": 2,
        "in_channels": 4,
        "out_channels": 4,
        "num_layers": 2,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "text_embed_dim": 12,
        "time_embed_dim": 16,
        "condition_dim": 8,
        "prior_vq_quantizer_codebook_size": 16,
    },
    _glm,
)
