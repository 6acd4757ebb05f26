"""Kandinsky 3."""

from __future__ import annotations

import torch
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny


def _kandinsky3(d: Draw, batch: int) -> Inputs:
    return {
        "sample": d.normal(batch, 4, 8, 8),
        "timestep": torch.tensor(1),
        "encoder_hidden_states": d.normal(batch, 5, 12),
        "encoder_attention_mask": torch.ones(batch, 5),
    }


DENOISERS["Kandinsky3UNet"] = Tiny(
    {
        "time_embedding_dim": 16,
        "groups": 2,
        "attention_head_dim": 4,
        "layers_per_block": 2,
        "block_out_channels": (16, 32, 32),
        "cross_attention_dim": 16,
        "encoder_hid_dim": 12,
    },
    _kandinsky3,
    moving="sample",
)
