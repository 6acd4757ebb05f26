"""LongCat: sound and image."""

from __future__ import annotations

import torch
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny


def _audio(d: Draw, batch: int) -> Inputs:
    return {
        "hidden_states": d.normal(batch, 16, 4),
        "encoder_hidden_states": d.normal(batch, 6, 12),
        "encoder_attention_mask": torch.ones(batch, 6, dtype=torch.bool),
        "timestep": torch.ones(batch),
        "attention_mask": torch.ones(batch, 16, dtype=torch.bool),
        "latent_cond": torch.zeros(batch, 16, 4),
    }


def _image(d: Draw, batch: int) -> Inputs:
    return {
        "hidden_states": d.normal(batch, 16, 4),
        "timestep": torch.ones(batch),
        "guidance": None,
        "encoder_hidden_states": d.normal(batch, 6, 12),
        "txt_ids": torch.cartesian_prod(torch.zeros(1), torch.arange(6.0), torch.zeros(1)),
        "img_ids": torch.cartesian_prod(torch.ones(1), torch.arange(4.0), torch.arange(4.0)),
        "return_dict": False,
    }


DENOISERS["LongCatAudioDiTTransformer"] = Tiny(
    {"dit_dim": 32, "dit_depth": 2, "dit_heads": 2, "dit_text_dim": 12, "latent_dim": 4, "ff_mult": 2.0}, _audio, start=1.0
)
DENOISERS["LongCatImageTransformer2DModel"] = Tiny(
    {
        "patch_size": 1,
        "in_channels": 4,
        "num_layers": 2,
        "num_single_layers": 2,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "joint_attention_dim": 12,
        "pooled_projection_dim": 12,
        "axes_dims_rope": [2, 2, 4],
    },
    _image,
    start=1.0,
)
