"""AnyFlow, and its variant that draws a clip chunk by chunk."""

from __future__ import annotations

import torch
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny

_LAYERS, _HEADS, _WIDTH = 2, 2, 12
_SIZES = {
    "num_attention_heads": _HEADS,
    "attention_head_dim": _WIDTH,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": 12,
    "freq_dim": 16,
    "ffn_dim": 32,
    "num_layers": _LAYERS,
    "rope_max_seq_len": 32,
}


def _anyflow(d: Draw, batch: int) -> Inputs:
    return {
        "hidden_states": d.normal(batch, 2, 4, 8, 8),
        "timestep": torch.full((batch, 2), 1000.0),
        "r_timestep": torch.zeros(batch, 2),
        "encoder_hidden_states": d.normal(batch, 6, 12),
    }


def _far(d: Draw, batch: int) -> Inputs:
    """A step on the second chunk, two frames, while the keys and values of the first, one frame, are kept from before."""
    kept = {"full_cache": (2, batch, _HEADS, 3 * 2 * 16, _WIDTH), "compressed_cache": (2, batch, _HEADS, 4, _WIDTH)}
    return {
        **_anyflow(d, batch),
        "chunk_partition": [1, 2],
        "kv_cache": {i: {name: d.normal(*shape) for name, shape in kept.items()} for i in range(_LAYERS)},
        "kv_cache_flag": {"num_cached_chunks": 1, "is_cache_step": False},
    }


DENOISERS["AnyFlowTransformer3DModel"] = Tiny(_SIZES, _anyflow)
DENOISERS["AnyFlowFARTransformer3DModel"] = Tiny({**_SIZES, "chunk_partition": (1, 2)}, _far)
