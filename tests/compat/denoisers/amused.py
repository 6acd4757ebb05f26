"""aMUSEd."""

from __future__ import annotations

import torch
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny


def _amused(d: Draw, batch: int) -> Inputs:
    return {
        "input_ids": d.ints(24, batch, 4, 4),
        "encoder_hidden_states": d.normal(batch, 5, 12),
        "pooled_text_emb": d.normal(batch, 12),
        "micro_conds": torch.ones(batch, 5),
    }


DENOISERS["UVit2DModel"] = Tiny(
    {
        "hidden_size": 16,
        "cond_embed_dim": 12,
        "micro_cond_encode_dim": 4,
        "micro_cond_embed_dim": 20,
        "encoder_hidden_size": 12,
        "vocab_size": 32,
        "codebook_size": 24,
        "in_channels": 16,
        "block_out_channels": 16,
        "num_res_blocks": 2,
        "block_num_heads": 2,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "sample_size": 4,
    },
    _amused,
    # What it denoises are token numbers, and it is not told the time: its text drifts in their place, and its picture sizes.
    moving="encoder_hidden_states",
    time="micro_conds",
)
