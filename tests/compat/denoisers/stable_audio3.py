"""Stable Audio 3."""

from __future__ import annotations

import torch
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny


def _stable_audio3(d: Draw, batch: int) -> Inputs:
    return {
        "hidden_states": d.normal(batch, 4, 16),
        "timestep": torch.ones(batch),
        "encoder_hidden_states": d.normal(batch, 6, 12),
        "global_hidden_states": d.normal(batch, 12),
        "encoder_attention_mask": torch.ones(batch, 6, dtype=torch.bool),
        "local_add_cond": d.normal(batch, 5, 16),
        "return_dict": False,
    }


DENOISERS["StableAudio3DiTModel"] = Tiny(
    {
        "io_channels": 4,
        "embed_dim": 16,
        "depth": 2,
        "num_heads": 2,
        "cond_token_dim": 12,
        "global_cond_dim": 12,
        "local_add_cond_dim": 5,
        "timestep_features_dim": 8,
        "ff_mult": 2.0,
        "num_memory_tokens": 3,
    },
    _stable_audio3,
    start=1.0,
)
