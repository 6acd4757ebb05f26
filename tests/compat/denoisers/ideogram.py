"""Ideogram 4."""

from __future__ import annotations

import torch
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny

_TEXT, _IMAGE = 5, 16


def _ideogram(d: Draw, batch: int) -> Inputs:
    """Text and image lie in one sequence; 3 marks a text token, 2 an image token. Its pipelines let the time rise to 1."""
    text, image = d.normal(batch, _TEXT + _IMAGE, 12), d.normal(batch, _TEXT + _IMAGE, 4)
    text[:, _TEXT:], image[:, :_TEXT] = 0, 0
    along_text = torch.arange(_TEXT)[:, None].expand(-1, 3)
    on_grid = torch.cartesian_prod(torch.zeros(1, dtype=torch.long), torch.arange(4), torch.arange(4)) + 65536
    kinds = torch.cat([torch.full((_TEXT,), 3), torch.full((_IMAGE,), 2)])
    return {
        "hidden_states": image,
        "timestep": torch.ones(batch),
        "encoder_hidden_states": text,
        "position_ids": torch.cat([along_text, on_grid]).expand(batch, -1, -1),
        "segment_ids": torch.ones(batch, _TEXT + _IMAGE, dtype=torch.long),
        "indicator": kinds.expand(batch, -1),
    }


DENOISERS["Ideogram4Transformer2DModel"] = Tiny(
    {
        "in_channels": 4,
        "num_layers": 2,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "adaln_dim": 16,
        "llm_features_dim": 12,
        "mrope_section": (2, 1, 1),
    },
    _ideogram,
    start=1.0,
)
