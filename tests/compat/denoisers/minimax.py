"""MiniMax: H3 (video and sound) and Music 3."""

from __future__ import annotations

import torch
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny

TEXT, AUDIO, VIDEO = 5, 6, 8


def _h3(d: Draw, batch: int) -> Inputs:
    # one packed row of tokens: text, then sound, then video
    position = torch.zeros(TEXT + AUDIO + VIDEO, 3)
    position[:, 0] = torch.arange(len(position))
    position[-VIDEO:] = torch.cartesian_prod(torch.arange(2.0), torch.arange(2.0), torch.arange(2.0))
    return {
        "hidden_states": d.normal(batch, VIDEO, 16),
        "audio_hidden_states": d.normal(batch, AUDIO, 6),
        "encoder_hidden_states": d.normal(batch, TEXT, 12),
        "timestep": torch.ones(2),
        "timestep_indices": torch.tensor([0] * TEXT + [1] * AUDIO + [0] * VIDEO),
        "token_tags": torch.tensor([1] * TEXT + [2] * AUDIO + [0] * VIDEO),
        "position_ids": position,
        "text_indices": torch.arange(TEXT),
        "audio_indices": TEXT + torch.arange(AUDIO),
        "video_indices": TEXT + AUDIO + torch.arange(VIDEO),
        "return_dict": False,
    }


def _music3(d: Draw, batch: int) -> Inputs:
    return {
        "hidden_states": d.normal(batch, 4, 16),
        "timestep": torch.ones(batch),
        "encoder_hidden_states": d.normal(batch, 16, 12),
        "return_dict": False,
    }


DENOISERS["MiniMaxH3Transformer3DModel"] = Tiny(
    {
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "hidden_size": 24,
        "num_layers": 2,
        "num_refiner_layers": 2,
        "ffn_dim": 32,
        "in_channels": 4,
        "audio_in_channels": 6,
        "patch_size": (1, 2, 2),
        "text_dim": 12,
        "freq_dim": 8,
        "time_embed_hidden_dim": 16,
        "time_embed_dim": 16,
        "rope_freq_dim": 2,
    },
    _h3,
    start=1.0,
)
DENOISERS["MiniMaxMusic3Transformer1DModel"] = Tiny(
    {
        "in_channels": 4,
        "condition_dim": 12,
        "num_layers": 2,
        "num_attention_heads": 2,
        "attention_head_dim": 8,
        "ff_inner_dim": 32,
        "rotary_dim": 4,
        "fourier_embedding_dim": 8,
    },
    _music3,
    start=1.0,
)
