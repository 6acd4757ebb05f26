"""Chroma: all modulations come from one small network."""

from __future__ import annotations

import torch
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny


def _chroma(d: Draw, batch: int) -> Inputs:
    return {
        "hidden_states": d.normal(batch, 16, 4),
        "encoder_hidden_states": d.normal(batch, 6, 12),
        "timestep": torch.ones(batch),
        "img_ids": torch.cartesian_prod(torch.zeros(1), torch.arange(4.0), torch.arange(4.0)),
        "txt_ids": torch.zeros(6, 3),
        "attention_mask": torch.ones(batch, 22, dtype=torch.bool),
    }


DENOISERS["ChromaTransformer2DModel"] = Tiny(
    {
        "patch_size": 1,
        "in_channels": 4,
        "num_layers": 2,
        "num_single_layers": 2,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "joint_attention_dim": 12,
        "axes_dims_rope": (2, 2, 4),
        "approximator_num_channels": 16,
        "approximator_hidden_dim": 8,
        "approximator_layers": 2,
    },
    _chroma,
    start=1.0,
)
