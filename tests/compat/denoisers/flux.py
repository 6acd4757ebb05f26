"""Flux."""

from __future__ import annotations

import torch
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny


def _flux(d: Draw, batch: int) -> Inputs:
    return {
        "hidden_states": d.normal(batch, 16, 4),
        "encoder_hidden_states": d.normal(batch, 6, 12),
        "pooled_projections": d.normal(batch, 12),
        "timestep": torch.ones(batch),
        "guidance": torch.ones(batch),
        "img_ids": torch.cartesian_prod(torch.zeros(1), torch.arange(4.0), torch.arange(4.0)),
        "txt_ids": torch.zeros(6, 3),
    }


DENOISERS["FluxTransformer2DModel"] = Tiny(
    {
        "patch_size": 1,
        "in_channels": 4,
        "num_layers": 2,
        "num_single_layers": 2,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "joint_attention_dim": 12,
        "pooled_projection_dim": 12,
        "axes_dims_rope": (2, 2, 4),
        "guidance_embeds": True,
    },
    _flux,
    start=1.0,
)
