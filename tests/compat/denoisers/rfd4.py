"""RFD4-Proteina: proteins."""

from __future__ import annotations

import torch
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny


def _rfd4(d: Draw, batch: int) -> Inputs:
    return {
        "bb_ca": d.normal(batch, 12, 3),
        "local_latents": d.normal(batch, 12, 4),
        "bb_ca_time": torch.ones(batch),
        "local_latents_time": torch.ones(batch),
        "padding_mask": torch.ones(batch, 12, dtype=torch.bool),
        "token_type": d.ints(7, batch, 12),
        "conditioning": {
            "is_in_context_conditioning": torch.zeros(batch, 12, dtype=torch.bool),
            "supports_local_latent": torch.ones(batch, 12, dtype=torch.bool),
        },
        "recycle_depth": 2,  # the blocks run twice in one call, as in most steps of the published recipe
    }


DENOISERS["RFD4ProteinaTransformer"] = Tiny(
    {
        "nlayers": 4,
        "token_dim": 32,
        "nheads": 2,
        "dim_cond": 8,
        "pair_repr_dim": 8,
        "latent_dim": 4,
        "token_type_emb_dim": 4,
        "t_emb_dim": 8,
        "xt_pair_dist_dim": 8,
        "tri_mult_c": 8,
        "num_sequence_classes": 16,
        "recycle_conditioning_dim": 6,
        "feats_seq": ("xt_bb_ca", "xt_local_latents", "token_type"),
        "feats_cond_seq": ("time_emb_bb_ca", "time_emb_local_latents", "recycle_remaining"),
        "feats_pair_repr": ("xt_bb_ca_pair_dists",),
        "feats_pair_cond": ("time_emb_bb_ca", "time_emb_local_latents"),
    },
    _rfd4,
    moving="bb_ca",
    time="bb_ca_time",
    start=1.0,
)
