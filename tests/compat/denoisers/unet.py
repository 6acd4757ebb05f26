"""U-Nets for images and sound: unconditional, Stable Diffusion and its kin, AudioLDM 2, ControlNet-XS, DreamLite."""

from __future__ import annotations

from typing import Any

import torch
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny

CROSS_DOWN_UP: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": (16, 32),
    "layers_per_block": 2,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "norm_num_groups": 4,
}


def _sound(d: Draw, batch: int) -> Inputs:
    return {"sample": d.normal(batch, 2, 64), "timestep": torch.tensor(1.0)}


def _image(d: Draw, batch: int) -> Inputs:
    return {"sample": d.normal(batch, 4, 8, 8), "timestep": torch.tensor(1)}


def _text_to_image(d: Draw, batch: int) -> Inputs:
    return {**_image(d, batch), "encoder_hidden_states": d.normal(batch, 5, 12)}


def _audioldm2(d: Draw, batch: int) -> Inputs:
    second = {"encoder_hidden_states_1": d.normal(batch, 6, 16), "encoder_attention_mask_1": torch.ones(batch, 6)}
    return {**_text_to_image(d, batch), **second}


def _controlnet_xs(d: Draw, batch: int) -> Inputs:
    return {**_text_to_image(d, batch), "controlnet_cond": d.normal(batch, 3, 16, 16), "conditioning_scale": 1.0}


def _dreamlite(d: Draw, batch: int) -> Inputs:
    ids = torch.tensor([[64.0, 64.0, 0.0, 0.0, 64.0, 64.0]]).repeat(batch, 1)
    return {
        **_text_to_image(d, batch),
        "timestep": torch.ones(batch),
        "encoder_attention_mask": torch.ones(batch, 5),
        "added_cond_kwargs": {"time_ids": ids},
    }


DENOISERS["UNet1DModel"] = Tiny(
    # Dance Diffusion's blocks: their attention has one head per 32 channels; the time joins the input as extra channels.
    {"block_out_channels": (32, 32, 64), "time_embedding_dim": 8, "extra_in_channels": 8, "sample_size": 64},
    _sound,
    moving="sample",
    start=1.0,
)

DENOISERS["UNet2DModel"] = Tiny(
    {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (16, 32),
        "layers_per_block": 2,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": 8,
        "norm_num_groups": 4,
    },
    _image,
    moving="sample",
)

DENOISERS["UNet2DConditionModel"] = Tiny(
    {**CROSS_DOWN_UP, "cross_attention_dim": 12, "attention_head_dim": 2},
    _text_to_image,
    moving="sample",
)

DENOISERS["AudioLDM2UNet2DConditionModel"] = Tiny(
    # three attentions after each resnet: over itself, over the first text, over the second
    {**CROSS_DOWN_UP, "cross_attention_dim": ((None, 12, 16), (None, 12, 16)), "attention_head_dim": 2},
    _audioldm2,
    moving="sample",
)

DENOISERS["UNetControlNetXSModel"] = Tiny(
    {
        **{k: v for k, v in CROSS_DOWN_UP.items() if k != "layers_per_block"},
        "cross_attention_dim": 12,
        "num_attention_heads": 2,
        "upcast_attention": False,
        "ctrl_block_out_channels": (8, 16),
        "ctrl_num_attention_heads": 2,
        "ctrl_max_norm_num_groups": 4,
        "ctrl_conditioning_embedding_out_channels": (8, 8),
    },
    _controlnet_xs,
    moving="sample",
)

DENOISERS["DreamLiteUNetModel"] = Tiny(
    {
        "sample_size": 8,
        "block_out_channels": (16, 16, 32),
        "layers_per_block": 2,
        "norm_num_groups": 4,
        "cross_attention_dim": 16,
        "attention_head_dim": 2,
        "encoder_hid_dim": 12,
        "encoder_hid_dim_type": "text_proj_rms",
        "addition_embed_type": "time",
        "addition_time_embed_dim": 4,
        "projection_class_embeddings_input_dim": 24,
    },
    _dreamlite,
    moving="sample",
)
