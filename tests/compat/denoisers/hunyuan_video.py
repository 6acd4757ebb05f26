"""HunyuanVideo: the first, its Framepack variant, and 1.5."""

from __future__ import annotations

import torch
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny

_SIZES = {
    "in_channels": 4,
    "out_channels": 4,
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "num_layers": 2,
    "num_single_layers": 2,
    "num_refiner_layers": 2,
    "mlp_ratio": 2.0,
    "patch_size": 2,
    "text_embed_dim": 12,
    "pooled_projection_dim": 8,
    "rope_axes_dim": (4, 2, 2),
}


def _text(d: Draw, batch: int) -> Inputs:
    return {
        "timestep": torch.full((batch,), 1000.0),
        "encoder_hidden_states": d.normal(batch, 6, 12),
        "encoder_attention_mask": torch.ones(batch, 6),
    }


def _video(d: Draw, batch: int) -> Inputs:
    return {
        "hidden_states": d.normal(batch, 4, 2, 8, 8),
        **_text(d, batch),
        "pooled_projections": d.normal(batch, 8),
        "guidance": torch.full((batch,), 6000.0),
    }


def _framepack(d: Draw, batch: int) -> Inputs:
    """A clip of two frames after a history of seven, whose oldest frames are patched most coarsely."""
    return {
        **_video(d, batch),
        "image_embeds": d.normal(batch, 5, 12),
        "indices_latents": torch.arange(7, 9),
        "latents_clean": d.normal(batch, 4, 1, 8, 8),
        "indices_latents_clean": torch.arange(6, 7),
        "latents_history_2x": d.normal(batch, 4, 2, 8, 8),
        "indices_latents_history_2x": torch.arange(4, 6),
        "latents_history_4x": d.normal(batch, 4, 4, 8, 8),
        "indices_latents_history_4x": torch.arange(4),
    }


def _video15(d: Draw, batch: int) -> Inputs:
    return {
        "hidden_states": d.normal(batch, 4, 2, 4, 4),
        **_text(d, batch),
        "encoder_hidden_states_2": d.normal(batch, 5, 8),
        "encoder_attention_mask_2": torch.ones(batch, 5),
        "image_embeds": torch.zeros(batch, 5, 8),
    }


DENOISERS["HunyuanVideoTransformer3DModel"] = Tiny(_SIZES, _video)
DENOISERS["HunyuanVideoFramepackTransformer3DModel"] = Tiny(
    {**_SIZES, "has_image_proj": True, "image_proj_dim": 12, "has_clean_x_embedder": True}, _framepack
)
# The projection of the glyph text is always 2048 wide; the blocks are wider and more here, to be no trifle beside it.
DENOISERS["HunyuanVideo15Transformer3DModel"] = Tiny(
    {
        "in_channels": 4,
        "out_channels": 4,
        "num_attention_heads": 4,
        "attention_head_dim": 16,
        "num_layers": 4,
        "num_refiner_layers": 2,
        "text_embed_dim": 12,
        "text_embed_2_dim": 8,
        "image_embed_dim": 8,
        "rope_axes_dim": (4, 6, 6),
        "target_size": 64,
        "task_type": "t2v",
    },
    _video15,
)
