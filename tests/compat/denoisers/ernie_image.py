"""ERNIE-Image."""

from __future__ import annotations

import torch
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny


def _ernie(d: Draw, batch: int) -> Inputs:
    return {
        "hidden_states": d.normal(batch, 4, 4, 4),
        "timestep": torch.full((batch,), 1000.0),
        "text_bth": d.normal(batch, 6, 12),
        "text_lens": torch.full((batch,), 5),
    }


DENOISERS["ErnieImageTransformer2DModel"] = Tiny(
    {
        "hidden_size": 16,
        "num_attention_heads": 2,
        "num_layers": 2,
        "ffn_hidden_size": 32,
        "in_channels": 4,
        "out_channels": 4,
        "text_in_dim": 12,
        "rope_axes_dim": (4, 2, 2),
    },
    _ernie,
)
