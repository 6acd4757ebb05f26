"""Nucleus-Image: a mixture of experts."""

from __future__ import annotations

import torch
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny


def _nucleus(d: Draw, batch: int) -> Inputs:
    return {
        "hidden_states": d.normal(batch, 16, 16),
        "timestep": torch.ones(batch),
        "encoder_hidden_states": d.normal(batch, 6, 12),
        "encoder_hidden_states_mask": torch.ones(batch, 6, dtype=torch.long),
        "img_shapes": [[(1, 4, 4)]] * batch,
        "return_dict": False,
    }


# three dense blocks, and two with experts
DENOISERS["NucleusMoEImageTransformer2DModel"] = Tiny(
    {
        "patch_size": 2,
        "in_channels": 16,
        "out_channels": 4,
        "num_layers": 5,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "joint_attention_dim": 12,
        "axes_dims_rope": (8, 4, 4),
        "mlp_ratio": 6.0,  # the width of a dense block is rounded down to a multiple of 128
        "dense_moe_strategy": "leave_first_three_blocks_dense",
        "num_experts": 4,
        "moe_intermediate_dim": 16,
        "capacity_factors": 2.0,
    },
    _nucleus,
    start=1.0,
)
