from __future__ import annotations

from typing import Any

import torch

from omnicache.runtime.streams import tensors_of


def gated_loss(out: Any, truth: Any, gates: torch.Tensor, price: float, weight: float = 1.0) -> torch.Tensor:
    """``weight * MSE + price * sum(gates)``: the error of a mixed output, and how much was computed for it.

    Args:
        out, truth: what the denoiser gives with mixed modules, and without.
        gates: all gates of the step; of gates by sample, ``(batch, modules)``, the sum is averaged over the batch.
        price: the papers' lambda (Learning-to-Cache), beta (HarmoniCa) or rho (LazyDiT).
        weight: of this step's error (HarmoniCa's lambda).
    """
    a, b = tensors_of(out)[0], tensors_of(truth)[0].detach()
    error = (a.float() - b.float()).square().mean()
    computed = gates.sum(-1).mean()
    return weight * error + price * computed
