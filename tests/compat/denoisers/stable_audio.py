"""Stable Audio."""

from __future__ import annotations

import torch
from diffusers.models.embeddings import get_1d_rotary_pos_embed
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny


def _stable_audio(d: Draw, batch: int) -> Inputs:
    return {
        "hidden_states": d.normal(batch, 4, 16),
        "timestep": torch.ones(1),  # one for the whole batch
        "encoder_hidden_states": d.normal(batch, 6, 12),
        "global_hidden_states": d.normal(batch, 1, 12),
        "rotary_embedding": get_1d_rotary_pos_embed(4, 17, use_real=True, repeat_interleave_real=False),
    }


DENOISERS["StableAudioDiTModel"] = Tiny(
    {
        "sample_size": 16,
        "in_channels": 4,
        "out_channels": 4,
        "num_layers": 2,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "num_key_value_attention_heads": 1,
        "cross_attention_dim": 12,
        "time_proj_dim": 16,
        "global_states_input_dim": 12,
        "cross_attention_input_dim": 12,
    },
    _stable_audio,
    start=1.0,
)
