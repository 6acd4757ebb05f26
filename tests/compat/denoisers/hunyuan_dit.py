"""HunyuanDiT: blocks of the second half take the outputs of the first half, as in a U-Net."""

from __future__ import annotations

import torch
from diffusers.models.embeddings import get_2d_rotary_pos_embed
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny


def _hunyuan_dit(d: Draw, batch: int) -> Inputs:
    return {
        "hidden_states": d.normal(batch, 4, 8, 8),
        "timestep": torch.full((batch,), 1000.0),
        "encoder_hidden_states": d.normal(batch, 5, 12),
        "text_embedding_mask": torch.ones(batch, 5),
        "encoder_hidden_states_t5": d.normal(batch, 6, 8),
        "text_embedding_mask_t5": torch.ones(batch, 6),
        "image_meta_size": torch.tensor([[64.0, 64, 64, 64, 0, 0]]).repeat(batch, 1),
        "style": torch.zeros(batch, dtype=torch.long),
        "image_rotary_emb": get_2d_rotary_pos_embed(8, ((0, 0), (4, 4)), (4, 4)),
    }


DENOISERS["HunyuanDiT2DModel"] = Tiny(
    {
        "sample_size": 8,
        "patch_size": 2,
        "in_channels": 4,
        "num_layers": 6,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "hidden_size": 16,
        "mlp_ratio": 2.0,
        "cross_attention_dim": 12,
        "cross_attention_dim_t5": 8,
        "pooled_projection_dim": 8,
        "text_len": 5,
        "text_len_t5": 6,
    },
    _hunyuan_dit,
)
