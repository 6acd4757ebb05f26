"""CogVideoX and ConsisID, which adds a face to it."""

from __future__ import annotations

import torch
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny

_COGVIDEOX = {
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "in_channels": 4,
    "out_channels": 4,
    "time_embed_dim": 16,
    "text_embed_dim": 12,
    "num_layers": 2,
    "sample_width": 8,
    "sample_height": 8,
    "sample_frames": 5,
    "patch_size": 2,
    "temporal_compression_ratio": 4,
    "max_text_seq_length": 6,
}


def _cogvideox(d: Draw, batch: int) -> Inputs:
    return {
        "hidden_states": d.normal(batch, 2, 4, 8, 8),
        "encoder_hidden_states": d.normal(batch, 6, 12),
        "timestep": torch.full((batch,), 1000),
    }


def _consisid(d: Draw, batch: int) -> Inputs:
    face = {"id_cond": d.normal(batch, 8), "id_vit_hidden": [d.normal(batch, 5, 8) for _ in range(2)]}
    return {**_cogvideox(d, batch), **face}


DENOISERS["CogVideoXTransformer3DModel"] = Tiny(_COGVIDEOX, _cogvideox)

# Every second block is followed by an attention to the face.
DENOISERS["ConsisIDTransformer3DModel"] = Tiny(
    {
        **_COGVIDEOX,
        "num_layers": 4,
        "is_train_face": True,
        "cross_attn_interval": 2,
        "cross_attn_dim_head": 8,
        "cross_attn_num_heads": 2,
        "LFE_id_dim": 8,
        "LFE_vit_dim": 8,
        "LFE_depth": 2,
        "LFE_dim_head": 4,
        "LFE_num_heads": 2,
        "LFE_num_id_token": 1,
        "LFE_num_querie": 2,
        "LFE_output_dim": 10,
        "LFE_ff_mult": 1,
        "LFE_num_scale": 2,
    },
    _consisid,
)
