"""DiT, told what to draw by a class."""

from __future__ import annotations

import torch
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny


def _dit(d: Draw, batch: int) -> Inputs:
    return {
        "hidden_states": d.normal(batch, 4, 8, 8),
        "timestep": torch.full((batch,), 1000),
        "class_labels": d.ints(8, batch),
    }


DENOISERS["DiTTransformer2DModel"] = Tiny(
    {
        "sample_size": 8,
        "patch_size": 2,
        "in_channels": 4,
        "out_channels": 8,
        "num_layers": 2,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "num_embeds_ada_norm": 8,
    },
    _dit,
)
