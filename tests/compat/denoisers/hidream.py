"""HiDream-I1."""

from __future__ import annotations

import torch
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny


def _hidream(d: Draw, batch: int) -> Inputs:
    return {
        "hidden_states": d.normal(batch, 4, 8, 8),
        "timesteps": torch.full((batch,), 1000.0),
        "encoder_hidden_states_t5": d.normal(batch, 5, 8),
        "encoder_hidden_states_llama3": d.normal(4, batch, 5, 4),
        "pooled_embeds": d.normal(batch, 8),
    }


DENOISERS["HiDreamImageTransformer2DModel"] = Tiny(
    {
        "patch_size": 2,
        "in_channels": 4,
        "out_channels": 4,
        "num_layers": 2,
        "num_single_layers": 2,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "caption_channels": (8, 4),
        "text_emb_dim": 8,
        "num_routed_experts": 2,
        "num_activated_experts": 1,
        "axes_dims_rope": (4, 2, 2),
        "max_resolution": (8, 8),
        "llama_layers": (0, 1, 2, 3),
    },
    _hidream,
    time="timesteps",
)
