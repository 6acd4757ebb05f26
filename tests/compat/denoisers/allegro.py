"""Allegro."""

from __future__ import annotations

import torch
from diffusers.models.embeddings import get_3d_rotary_pos_embed_allegro
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny


def _allegro(d: Draw, batch: int) -> Inputs:
    *waves, frames, rows, columns = get_3d_rotary_pos_embed_allegro(12, ((0, 0), (4, 4)), (4, 4), 2)
    places = torch.cartesian_prod(frames, rows, columns).long().T[:, None]
    return {
        "hidden_states": d.normal(batch, 4, 2, 8, 8),
        "encoder_hidden_states": d.normal(batch, 6, 12),
        "encoder_attention_mask": torch.ones(batch, 6, dtype=torch.long),
        "timestep": torch.full((batch,), 1000),
        "image_rotary_emb": (tuple(waves), tuple(places)),
    }


DENOISERS["AllegroTransformer3DModel"] = Tiny(
    {
        "patch_size": 2,
        "in_channels": 4,
        "out_channels": 4,
        "num_layers": 2,
        "attention_head_dim": 12,
        "num_attention_heads": 2,
        "cross_attention_dim": 24,
        "caption_channels": 12,
        "sample_height": 8,
        "sample_width": 8,
        "sample_frames": 2,
    },
    _allegro,
)
