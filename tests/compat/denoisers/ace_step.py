"""ACE-Step 1.5."""

from __future__ import annotations

import torch
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny


def _ace_step(d: Draw, batch: int) -> Inputs:
    return {
        "hidden_states": d.normal(batch, 32, 4),
        "timestep": torch.ones(batch),
        "timestep_r": torch.ones(batch),
        "encoder_hidden_states": d.normal(batch, 6, 16),
        "context_latents": d.normal(batch, 32, 8),
    }


# Four layers: two that look at a window and two that look at everything.
DENOISERS["AceStepTransformer1DModel"] = Tiny(
    {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "in_channels": 12,
        "audio_acoustic_hidden_dim": 4,
        "sliding_window": 4,
    },
    _ace_step,
    start=1.0,
)
