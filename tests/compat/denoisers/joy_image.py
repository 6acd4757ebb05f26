"""JoyImage-Edit and JoyImage-Edit-Plus."""

from __future__ import annotations

import torch
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny

_SIZES = {
    "patch_size": (1, 2, 2),
    "in_channels": 4,
    "hidden_size": 32,
    "num_attention_heads": 2,
    "text_dim": 12,
    "mlp_width_ratio": 2.0,
    "num_layers": 2,
    "rope_dim_list": (4, 6, 6),
}


def _text(d: Draw, batch: int) -> Inputs:
    return {"timestep": torch.full((batch,), 1000.0), "encoder_hidden_states": d.normal(batch, 6, 12)}


def _edit(d: Draw, batch: int) -> Inputs:
    """Two items: the image to edit and the one to draw."""
    return {"hidden_states": d.normal(batch, 2, 4, 1, 8, 8), **_text(d, batch)}


def _edit_plus(d: Draw, batch: int) -> Inputs:
    """Patches of the image to draw and of two references of other sizes, in one row."""
    shapes = [(1, 4, 4), (1, 2, 4), (1, 2, 2)]
    return {
        "hidden_states": d.normal(batch, 28, 4, 1, 2, 2),
        **_text(d, batch),
        "encoder_hidden_states_mask": torch.ones(batch, 6),
        "shape_list": [shapes] * batch,
    }


DENOISERS["JoyImageEditTransformer3DModel"] = Tiny(_SIZES, _edit)
DENOISERS["JoyImageEditPlusTransformer3DModel"] = Tiny(_SIZES, _edit_plus)
