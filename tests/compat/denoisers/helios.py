"""Helios."""

from __future__ import annotations

import torch
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny


def _helios(d: Draw, batch: int) -> Inputs:
    """A clip of two frames after a history of seven: the older, the more coarsely patched."""

    def frames(first: int, after: int) -> torch.Tensor:
        return torch.arange(first, after).expand(batch, -1)

    return {
        "hidden_states": d.normal(batch, 4, 2, 8, 8),
        "timestep": torch.full((batch,), 1000.0),
        "encoder_hidden_states": d.normal(batch, 6, 12),
        "indices_latents_history_long": frames(0, 4),
        "indices_latents_history_mid": frames(4, 6),
        "indices_latents_history_short": frames(6, 7),
        "indices_hidden_states": frames(7, 9),
        "latents_history_long": d.normal(batch, 4, 4, 8, 8),
        "latents_history_mid": d.normal(batch, 4, 2, 8, 8),
        "latents_history_short": d.normal(batch, 4, 1, 8, 8),
    }


DENOISERS["HeliosTransformer3DModel"] = Tiny(
    {
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "in_channels": 4,
        "out_channels": 4,
        "text_dim": 12,
        "freq_dim": 16,
        "ffn_dim": 32,
        "num_layers": 2,
        "rope_dim": (4, 4, 4),
    },
    _helios,
)
