"""Qwen-Image."""

from __future__ import annotations

import torch
from diffusers.models.transformers.transformer_qwenimage21 import QwenImage21KVCache
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny

LAYERS, HEADS, WIDTH, TEXT = 2, 2, 16, 6


def _qwen(d: Draw, batch: int) -> Inputs:
    return {
        "hidden_states": d.normal(batch, 16, 16),
        "timestep": torch.ones(batch),
        "guidance": None,
        "encoder_hidden_states_mask": torch.ones(batch, TEXT, dtype=torch.long),
        "encoder_hidden_states": d.normal(batch, TEXT, 12),
        "img_shapes": [[(1, 4, 4)]] * batch,
        "return_dict": False,
    }


def _qwen21(d: Draw, batch: int) -> Inputs:
    # as in all steps but the first: keys and values of the text are kept, the blocks see the image alone
    cache = QwenImage21KVCache(LAYERS)
    for layer in cache.layer_caches:
        layer.store(d.normal(batch, TEXT, HEADS, WIDTH), d.normal(batch, TEXT, HEADS, WIDTH))
    return {
        "hidden_states": d.normal(batch, 16, 4),
        "timestep": torch.ones(batch),
        "encoder_hidden_states": d.normal(batch, TEXT, 12),
        "encoder_hidden_states_mask": torch.ones(batch, TEXT, dtype=torch.bool),
        "img_shapes": [[(1, 4, 4)]] * batch,
        "img_mask": torch.tensor([[False] * TEXT + [True] * 4] * batch),  # one slot of the text model is 2 x 2 latents
        "kv_cache": cache,
        "kv_cache_mode": "cached",
        "return_dict": False,
    }


CONFIG = {
    "num_layers": LAYERS,
    "attention_head_dim": WIDTH,
    "num_attention_heads": HEADS,
    "axes_dims_rope": (8, 4, 4),
}
DENOISERS["QwenImageTransformer2DModel"] = Tiny(
    {**CONFIG, "patch_size": 2, "in_channels": 16, "out_channels": 4, "joint_attention_dim": 12}, _qwen, start=1.0
)
DENOISERS["QwenImage21Transformer2DModel"] = Tiny(
    {**CONFIG, "in_channels": 4, "out_channels": 4, "context_in_dim": 12, "mlp_ratio": 2}, _qwen21, start=1.0
)
