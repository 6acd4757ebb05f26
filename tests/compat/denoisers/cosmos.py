"""Cosmos: Cosmos 1 to 2.5, and the omni model Cosmos 3."""

from __future__ import annotations

import torch
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny


def _cosmos(d: Draw, batch: int) -> Inputs:
    return {
        "hidden_states": d.normal(batch, 4, 2, 8, 8),
        "encoder_hidden_states": d.normal(batch, 6, 12),
        "timestep": torch.ones(batch),
        "fps": 16,
    }


DENOISERS["CosmosTransformer3DModel"] = Tiny(
    {
        "in_channels": 4,
        "out_channels": 4,
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "num_layers": 2,
        "mlp_ratio": 2.0,
        "text_embed_dim": 12,
        "adaln_lora_dim": 4,
        "max_size": (4, 16, 16),
        "patch_size": (1, 2, 2),
        "concat_padding_mask": False,  # resizing the mask needs torchvision
    },
    _cosmos,
    start=1.0,
)


def _cosmos3(d: Draw, batch: int) -> Inputs:
    """One clip whatever the batch: the model packs one prompt and what belongs to it into one sequence."""
    text, vision = 5, 32
    where = torch.arange(text, text + vision)
    along_text = torch.arange(text).expand(3, -1)
    on_grid = torch.cartesian_prod(torch.arange(2), torch.arange(4), torch.arange(4)).T + text
    return {
        "input_ids": d.ints(16, text),
        "text_indexes": torch.arange(text),
        "position_ids": torch.cat([along_text, on_grid], dim=1),
        "und_len": text,
        "sequence_length": text + vision,
        "vision_tokens": [d.normal(1, 4, 2, 8, 8)],
        "vision_token_shapes": [(2, 4, 4)],
        "vision_sequence_indexes": where,
        "vision_mse_loss_indexes": where,
        "vision_timesteps": torch.full((vision,), 1000.0),
        "vision_noisy_frame_indexes": [torch.arange(2)],
    }


DENOISERS["Cosmos3OmniTransformer"] = Tiny(
    {
        "head_dim": 8,
        "hidden_size": 16,
        "intermediate_size": 32,
        "latent_channel": 4,
        "latent_patch_size": 2,
        "patch_latent_dim": 16,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "num_hidden_layers": 2,
        "rope_axes_dim": (2, 1, 1),
        "vocab_size": 16,
    },
    _cosmos3,
    moving="vision_tokens",
    time="vision_timesteps",
)
