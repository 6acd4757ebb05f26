"""The decoder of spectrogram diffusion, told what to play by notes and by the segment before."""

from __future__ import annotations

import torch
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny


def _t5_film(d: Draw, batch: int) -> Inputs:
    return {
        "encodings_and_masks": [(d.normal(batch, n, 16), torch.ones(batch, n)) for n in (6, 5)],
        "decoder_input_tokens": d.normal(batch, 16, 4),
        "decoder_noise_time": torch.ones(batch),
    }


DENOISERS["T5FilmDecoder"] = Tiny(
    {"input_dims": 4, "targets_length": 16, "d_model": 16, "num_layers": 2, "num_heads": 2, "d_kv": 8, "d_ff": 32},
    _t5_film,
    moving="decoder_input_tokens",
    time="decoder_noise_time",
    start=1.0,
)
