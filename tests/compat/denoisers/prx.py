"""PRX."""

from __future__ import annotations

import torch
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny


def _prx(d: Draw, batch: int) -> Inputs:
    return {
        "hidden_states": d.normal(batch, 4, 8, 8),
        "timestep": torch.ones(batch),
        "encoder_hidden_states": d.normal(batch, 6, 12),
        "attention_mask": torch.ones(batch, 6, dtype=torch.bool),
        "return_dict": False,
    }


DENOISERS["PRXTransformer2DModel"] = Tiny(
    {
        "in_channels": 4,
        "patch_size": 2,
        "context_in_dim": 12,
        "hidden_size": 16,
        "mlp_ratio": 2.0,
        "num_heads": 2,
        "depth": 2,
        "axes_dim": [4, 4],
    },
    _prx,
    start=1.0,
)
