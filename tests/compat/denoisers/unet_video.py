"""U-Nets for video: text-to-video, AnimateDiff, Stable Video Diffusion, I2VGen-XL."""

from __future__ import annotations

from typing import Any

import torch
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny

FRAMES = 3
SIZES: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": (16, 32),
    "layers_per_block": 2,
    "norm_num_groups": 4,
    "cross_attention_dim": 12,
}


def _blocks(kind: str) -> dict[str, Any]:
    return {
        "down_block_types": (f"CrossAttnDownBlock{kind}", f"DownBlock{kind}"),
        "up_block_types": (f"UpBlock{kind}", f"CrossAttnUpBlock{kind}"),
    }


def _text_to_video(d: Draw, batch: int) -> Inputs:
    return {
        "sample": d.normal(batch, 4, FRAMES, 8, 8),
        "timestep": torch.tensor(1),
        "encoder_hidden_states": d.normal(batch, 5, 12),
    }


def _motion(d: Draw, batch: int) -> Inputs:
    # the text once for every frame
    return {**_text_to_video(d, batch), "encoder_hidden_states": d.normal(batch * FRAMES, 5, 12)}


def _spatio_temporal(d: Draw, batch: int) -> Inputs:
    return {
        "sample": d.normal(batch, FRAMES, 8, 8, 8),
        "timestep": torch.tensor(1.0),
        "encoder_hidden_states": d.normal(batch, 1, 12),
        "added_time_ids": torch.tensor([[6.0, 127.0, 0.02]]).repeat(batch, 1),
    }


def _image_to_video(d: Draw, batch: int) -> Inputs:
    return {
        **_text_to_video(d, batch),
        "fps": torch.full((batch,), 16),
        "image_latents": d.normal(batch, 4, FRAMES, 8, 8),
        "image_embeddings": d.normal(batch, 1, 12),
    }


DENOISERS["UNet3DConditionModel"] = Tiny({**SIZES, **_blocks("3D"), "attention_head_dim": 4}, _text_to_video, moving="sample")

DENOISERS["UNetMotionModel"] = Tiny(
    {**SIZES, **_blocks("Motion"), "num_attention_heads": 2, "motion_num_attention_heads": 2, "motion_max_seq_length": 4},
    _motion,
    moving="sample",
)

DENOISERS["UNetSpatioTemporalConditionModel"] = Tiny(
    {
        **{k: v for k, v in SIZES.items() if k != "norm_num_groups"},
        **_blocks("SpatioTemporal"),
        "block_out_channels": (32, 64),  # its norms have 32 groups
        "num_attention_heads": 2,
        "num_frames": FRAMES,
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 24,
    },
    _spatio_temporal,
    moving="sample",
)

DENOISERS["I2VGenXLUNet"] = Tiny({**SIZES, **_blocks("3D"), "attention_head_dim": 4}, _image_to_video, moving="sample")
