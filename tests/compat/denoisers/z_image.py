"""Z-Image."""

from __future__ import annotations

import torch
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny


def _z_image(d: Draw, batch: int) -> Inputs:
    return {
        "x": [d.normal(4, 1, 8, 8) for _ in range(batch)],
        "t": torch.ones(batch),
        "cap_feats": [d.normal(6, 12) for _ in range(batch)],
        "return_dict": False,
    }


# the embedding of the timestep is 1024 wide whatever the configuration says; the blocks must not be small beside it
DENOISERS["ZImageTransformer2DModel"] = Tiny(
    {
        "in_channels": 4,
        "dim": 32,
        "n_layers": 2,
        "n_refiner_layers": 2,
        "n_heads": 2,
        "n_kv_heads": 2,
        "cap_feat_dim": 12,
        "axes_dims": [8, 4, 4],
        "axes_lens": [128, 32, 32],
    },
    _z_image,
    moving="x",
    time="t",
    start=1.0,
)
