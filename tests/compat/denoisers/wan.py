"""Wan and what was built on it: VACE, Animate and Animate 2."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import torch
from diffusers.models.transformers import transformer_wan_animate_2 as animate2
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny
from torch.nn.attention.flex_attention import create_block_mask


class _Masked(Tiny):
    """Its attention mask is drawn beforehand: the model would compile that, which takes longer than all the rest."""

    def build(self, name: str) -> Any:
        model: Any = super().build(name)
        with patch.object(animate2, "create_block_mask", lambda *args, _compile, **options: create_block_mask(*args, **options)):
            model.block_masks[2, 4] = model.create_mask(2, 4, "cpu")
        return model


CONFIG = {
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "text_dim": 12,
    "freq_dim": 16,
    "ffn_dim": 32,
    "rope_max_seq_len": 32,
}


def _wan(d: Draw, batch: int) -> Inputs:
    return {
        "hidden_states": d.normal(batch, 4, 2, 4, 8),
        "timestep": torch.ones(batch),
        "encoder_hidden_states": d.normal(batch, 6, 12),
        "return_dict": False,
    }


def _vace(d: Draw, batch: int) -> Inputs:
    control = {"control_hidden_states": d.normal(batch, 6, 2, 4, 8), "control_hidden_states_scale": torch.ones(2)}
    return {**_wan(d, batch), **control}


def _animate(d: Draw, batch: int) -> Inputs:
    # five pictures of the face become two latent frames, and one comes before them
    return {
        "hidden_states": d.normal(batch, 12, 3, 4, 8),
        "timestep": torch.ones(batch),
        "encoder_hidden_states": d.normal(batch, 6, 12),
        "encoder_hidden_states_image": d.normal(batch, 4, 16),
        "pose_hidden_states": d.normal(batch, 4, 2, 4, 8),
        "face_pixel_values": d.normal(batch, 3, 5, 16, 16),
        "motion_encode_batch_size": 8,
        "return_dict": False,
    }


def _animate2(d: Draw, batch: int) -> Inputs:
    # a denoising step: keys and values of the driving film, two frames of 2 x 2 tokens, are given
    cache = animate2.WanAnimate2KVCache(2)
    for layer in cache.layer_caches:
        layer.store(d.normal(batch, 8, 2, 16), d.normal(batch, 8, 2, 16))
    return {
        "hidden_states": [d.normal(4, 3, 4, 4) for _ in range(batch)],
        "timestep": torch.ones(batch),
        "encoder_hidden_states": [d.normal(6, 12) for _ in range(batch)],
        "condition_latents": [d.normal(8, 3, 4, 4) for _ in range(batch)],
        "kv_cache": cache,
        "kv_cache_mode": "cached",
        "seq_len": 12,
        "reference_grid_sizes": torch.tensor([[2, 2, 2]] * batch),
        "origin_len": 5,
        "origin_area": [32, 32],
        "return_dict": False,
    }


DENOISERS["WanTransformer3DModel"] = Tiny({**CONFIG, "in_channels": 4, "out_channels": 4, "num_layers": 2}, _wan)
DENOISERS["WanVACETransformer3DModel"] = Tiny(
    {**CONFIG, "in_channels": 4, "out_channels": 4, "num_layers": 4, "vace_layers": [0, 2], "vace_in_channels": 6}, _vace
)
DENOISERS["WanAnimateTransformer3DModel"] = Tiny(
    {
        **CONFIG,
        "in_channels": 12,
        "latent_channels": 4,
        "out_channels": 4,
        "num_layers": 4,
        "image_dim": 16,
        "motion_encoder_channel_sizes": {"4": 4, "8": 4, "16": 4},
        "motion_encoder_size": 16,
        "motion_style_dim": 8,
        "motion_dim": 4,
        "motion_encoder_dim": 8,
        "face_encoder_hidden_dim": 8,
        "face_encoder_num_heads": 2,
        "inject_face_latents_blocks": 2,
    },
    _animate,
)
# without the projection of a picture, whose width of 1280 is fixed
DENOISERS["WanAnimate2Transformer3DModel"] = _Masked(
    {
        "text_len": 8,
        "in_dim": 12,
        "dim": 32,
        "ffn_dim": 32,
        "freq_dim": 16,
        "text_dim": 12,
        "out_dim": 4,
        "num_heads": 2,
        "num_layers": 2,
        "use_img_emb": False,
    },
    _animate2,
)
