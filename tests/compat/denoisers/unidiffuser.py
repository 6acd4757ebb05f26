"""UniDiffuser."""

from __future__ import annotations

import torch
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny


def _unidiffuser(d: Draw, batch: int) -> Inputs:
    return {
        "latent_image_embeds": d.normal(batch, 4, 8, 8),
        "image_embeds": d.normal(batch, 1, 12),
        "prompt_embeds": d.normal(batch, 6, 12),
        "timestep_img": torch.tensor(1),
        "timestep_text": torch.tensor(1),
    }


DENOISERS["UniDiffuserModel"] = Tiny(
    {
        "text_dim": 12,
        "clip_img_dim": 12,
        "num_text_tokens": 6,
        "num_attention_heads": 2,
        "attention_head_dim": 8,
        "in_channels": 4,
        "out_channels": 4,
        "num_layers": 4,  # two that go in, one in the middle, two that come out
        "sample_size": 8,
        "patch_size": 2,
        "activation_fn": "gelu",
    },
    _unidiffuser,
    moving="latent_image_embeds",
    time="timestep_img",
)
