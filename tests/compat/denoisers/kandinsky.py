"""Kandinsky 5 and 6, and Kandinsky 6 for super-resolution."""

from __future__ import annotations

import torch
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny

_SIZES = {"time_dim": 16, "model_dim": 32, "ff_dim": 64, "num_visual_blocks": 2, "axes_dims": (4, 6, 6)}
_TEXT = {"in_text_dim": 12, "in_text_dim2": 8, "num_text_blocks": 2}


def _text(d: Draw, batch: int) -> Inputs:
    return {
        "encoder_hidden_states": d.normal(batch, 6, 12),
        "pooled_projections": d.normal(batch, 8),
        "timestep": torch.full((batch,), 1000.0),
    }


def _kandinsky5(d: Draw, batch: int) -> Inputs:
    return {
        "hidden_states": d.normal(batch, 2, 8, 8, 4),
        **_text(d, batch),
        "visual_rope_pos": (torch.arange(2), torch.arange(4), torch.arange(4)),
        "text_rope_pos": torch.arange(6),
    }


def _kandinsky6(d: Draw, batch: int) -> Inputs:
    """Video and sound; the video with what it is conditioned on and a mask beside it."""
    return {"hidden_states": d.normal(batch, 2, 8, 8, 9), **_text(d, batch), "audio_hidden_states": d.normal(batch, 8, 6)}


def _kandinsky6_sr(d: Draw, batch: int) -> Inputs:
    """Its attention looks at blocks of 8 by 8 tokens: two of them here."""
    return {"hidden_states": d.normal(batch, 2, 8, 8, 9), "timestep": torch.full((batch,), 1000.0)}


DENOISERS["Kandinsky5Transformer3DModel"] = Tiny({**_SIZES, **_TEXT, "in_visual_dim": 4, "out_visual_dim": 4}, _kandinsky5)
DENOISERS["Kandinsky6Transformer3DModel"] = Tiny(
    {
        **_SIZES,
        **_TEXT,
        "in_visual_dim": 4,
        "out_visual_dim": 4,
        "in_audio_dim": 6,
        "out_audio_dim": 6,
        "model_dim_a": 16,
        "ff_dim_a": 32,
        "ca_rope": True,
        "cross_gates": True,
        "fix_modulation": True,
    },
    _kandinsky6,
)
DENOISERS["Kandinsky6SRTransformer3DModel"] = Tiny({**_SIZES, "in_visual_dim": 4, "out_visual_dim": 4}, _kandinsky6_sr)
