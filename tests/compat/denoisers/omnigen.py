"""OmniGen: one row of tokens holds the prompt, an image to start from, the time and the latents."""

from __future__ import annotations

import torch
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny


def _omnigen(d: Draw, batch: int) -> Inputs:
    tokens = 7 + 1 + 16  # prompt (an image of four in it), time, latents
    return {
        "hidden_states": d.normal(batch, 4, 8, 8),
        "timestep": torch.ones(batch),
        "input_ids": d.ints(32, batch, 7),
        "input_img_latents": [d.normal(1, 4, 4, 4) for _ in range(batch)],
        "input_image_sizes": {i: [[2, 6]] for i in range(batch)},
        "attention_mask": torch.ones(batch, tokens, tokens),
        "position_ids": torch.arange(tokens).repeat(batch, 1),
    }


DENOISERS["OmniGenTransformer2DModel"] = Tiny(
    {
        "in_channels": 4,
        "patch_size": 2,
        "hidden_size": 16,
        "num_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "intermediate_size": 32,
        "pad_token_id": 0,
        "vocab_size": 32,
        "rope_scaling": {"long_factor": [1, 2, 3, 4], "short_factor": [1, 2, 3, 4]},
        "pos_embed_max_size": 8,
        "time_step_dim": 16,
    },
    _omnigen,
    start=1.0,
)
