"""The prior of unCLIP and Kandinsky: it denoises one image embedding."""

from __future__ import annotations

import torch
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny


def _prior(d: Draw, batch: int) -> Inputs:
    return {
        "hidden_states": d.normal(batch, 12),
        "timestep": torch.tensor(1000),
        "proj_embedding": d.normal(batch, 12),
        "encoder_hidden_states": d.normal(batch, 7, 12),
        "attention_mask": torch.ones(batch, 7, dtype=torch.bool),
    }


DENOISERS["PriorTransformer"] = Tiny(
    {
        "num_attention_heads": 2,
        "attention_head_dim": 8,
        "num_layers": 2,
        "embedding_dim": 12,
        "num_embeddings": 7,
        "additional_embeddings": 4,
    },
    _prior,
)
