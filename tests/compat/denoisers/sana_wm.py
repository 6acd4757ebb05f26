"""SANA-WM: a world model steered by a camera, and its refiner."""

from __future__ import annotations

import torch
from diffusers.models.transformers.transformer_sana_wm_refiner import SanaWMRefinerKVCache
from tests.compat.denoisers.ltx2 import CONFIG
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny


def _sana_wm(d: Draw, batch: int) -> Inputs:
    pose = torch.eye(4).flatten()
    lens = torch.tensor([4.0, 4.0, 2.0, 2.0])  # focal lengths and centre
    return {
        "hidden_states": d.normal(batch, 4, 3, 4, 4),
        "timestep": torch.ones(batch, 1, 3),
        "encoder_hidden_states": d.normal(batch, 1, 6, 12),
        "mask": torch.ones(batch, 6),
        "camera_conditions": torch.cat([pose, lens]).expand(batch, 3, 20),
        "chunk_plucker": d.normal(batch, 6, 3, 4, 4),
        "return_dict": False,
    }


def _turn(batch: int, start: int, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotations by position: cosine and sine, every angle twice."""
    angles = torch.outer(torch.arange(start, start + tokens) * 1.0, 0.5 ** torch.arange(8)).repeat_interleave(2, dim=1)
    return angles.cos().expand(batch, -1, -1), angles.sin().expand(batch, -1, -1)


def _refiner(d: Draw, batch: int) -> Inputs:
    # a denoising step within a film: keys and values of the first frame and of the frames before are given
    cache = SanaWMRefinerKVCache(CONFIG["num_layers"])
    cache.sink_pe = _turn(batch, 0, 4)
    for layer in cache.layer_caches:
        layer.store_sink(d.normal(batch, 4, 16), d.normal(batch, 4, 16))
        layer.store_history(d.normal(batch, 8, 16), d.normal(batch, 8, 16))
    return {
        "hidden_states": d.normal(batch, 16, 4),
        "encoder_hidden_states": d.normal(batch, 6, 12),
        "timestep": torch.ones(batch, 16),
        "video_rotary_emb": _turn(batch, 12, 16),
        "encoder_attention_mask": torch.ones(batch, 6),
        "kv_cache": cache,
        "kv_cache_mode": "inject",
        "return_dict": False,
    }


# two blocks of either kind of attention
DENOISERS["SanaWMTransformer3DModel"] = Tiny(
    {
        "in_channels": 4,
        "num_layers": 4,
        "hidden_size": 32,
        "num_attention_heads": 2,
        "softmax_every_n": 2,
        "linear_head_dim": 16,
        "cam_attn_compress": 1,
        "chunk_plucker_channels": 6,
        "chunk_plucker_post_attn_blocks": 4,
        "caption_channels": 12,
        "mlp_ratio": 2.0,
    },
    _sana_wm,
)
DENOISERS["SanaWMLTX2RefinerTransformer3DModel"] = Tiny(CONFIG, _refiner)
