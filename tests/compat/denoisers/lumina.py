"""Lumina-Next and Lumina 2. Their pipelines let the time rise from 0 to 1, which changes nothing here."""

from __future__ import annotations

import torch
from diffusers.models.embeddings import get_2d_rotary_pos_embed_lumina
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny

_LUMINA = {
    "sample_size": 8,
    "patch_size": 2,
    "in_channels": 4,
    "hidden_size": 16,
    "num_layers": 2,
    "num_attention_heads": 2,
    "num_kv_heads": 1,
    "multiple_of": 8,
}


def _lumina(d: Draw, batch: int) -> Inputs:
    return {
        "hidden_states": d.normal(batch, 4, 8, 8),
        "timestep": torch.ones(batch),
        "encoder_hidden_states": d.normal(batch, 6, 12),
    }


def _lumina_next(d: Draw, batch: int) -> Inputs:
    masks = {"encoder_mask": torch.ones(batch, 6), "image_rotary_emb": get_2d_rotary_pos_embed_lumina(8, 4, 4)}
    return {**_lumina(d, batch), **masks, "cross_attention_kwargs": {}}


def _lumina2(d: Draw, batch: int) -> Inputs:
    return {**_lumina(d, batch), "encoder_attention_mask": torch.ones(batch, 6, dtype=torch.long)}


DENOISERS["LuminaNextDiT2DModel"] = Tiny({**_LUMINA, "cross_attention_dim": 12}, _lumina_next, start=1.0)

DENOISERS["Lumina2Transformer2DModel"] = Tiny(
    {**_LUMINA, "num_refiner_layers": 2, "axes_dim_rope": (4, 2, 2), "axes_lens": (16, 8, 8), "cap_feat_dim": 12},
    _lumina2,
    start=1.0,
)
