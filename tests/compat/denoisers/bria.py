"""Bria and its FIBO models, which give layers of the text encoder to blocks."""

from __future__ import annotations

import torch
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny

_BRIA = {
    "patch_size": 1,
    "in_channels": 4,
    "num_layers": 2,
    "num_single_layers": 2,
    "attention_head_dim": 8,
    "num_attention_heads": 2,
    "joint_attention_dim": 12,
    "axes_dims_rope": [2, 2, 4],
}


def _bria(d: Draw, batch: int) -> Inputs:
    return {
        "hidden_states": d.normal(batch, 16, 4),
        "timestep": torch.full((batch,), 1000.0),
        "encoder_hidden_states": d.normal(batch, 6, 12),
        "img_ids": torch.cartesian_prod(torch.zeros(1), torch.arange(4.0), torch.arange(4.0)),
        "txt_ids": torch.zeros(6, 3),
    }


def _bria_fibo(d: Draw, batch: int) -> Inputs:
    return {**_bria(d, batch), "text_encoder_layers": [d.normal(batch, 6, 8) for _ in range(4)]}


def _bria_fibo2(d: Draw, batch: int) -> Inputs:
    return {
        "hidden_states": d.normal(batch, 4, 8, 8),
        "timestep": torch.ones(batch),
        "encoder_hidden_states": d.normal(batch, 3, 6, 12),  # one for all, one for each of the two blocks that take text
        "encoder_attention_mask": torch.ones(batch, 6, dtype=torch.bool),
    }


DENOISERS["BriaTransformer2DModel"] = Tiny(_BRIA, _bria)
DENOISERS["BriaFiboTransformer2DModel"] = Tiny({**_BRIA, "text_encoder_dim": 8}, _bria_fibo)

DENOISERS["BriaFibo2Transformer2DModel"] = Tiny(
    {
        "in_channels": 4,
        "patch_size": 2,
        "dim": 48,
        "n_layers": 4,
        "n_refiner_layers": 2,
        "n_heads": 2,
        "cap_feat_dim": 12,
        "injection_layer_ids": (1, 3),
        "perceiver_num_layers": 2,
        "min_num_gist_tokens": 2,
        "max_num_gist_tokens": 4,
        "gist_step": 1,
        "gist_min_text_len": 1,
        "gist_max_text_len": 8,
        "axes_dims": (8, 8, 8),
        "axes_lens": (8, 8, 8),
    },
    _bria_fibo2,
    start=1.0,
)
