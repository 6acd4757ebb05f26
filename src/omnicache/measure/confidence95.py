"""A confidence interval of a mean."""

from __future__ import annotations

import torch
from torch import Tensor

from omnicache.errors import OmniCacheError

RESAMPLES = 10_000
SEED = 0


def confidence95(values: Tensor) -> tuple[float, float]:
    """Ends of the 95 % bootstrap interval of the mean of ``values``, ``(n,)``: percentiles of 10,000 resampled means.

    The seed is fixed: the same values give the same interval. Where all values are equal, the interval is a point,
    which for few values says too much.
    """
    if values.ndim != 1 or not len(values):
        raise OmniCacheError(f"values must have the shape (n,) with n >= 1, these have {tuple(values.shape)}")
    v, g = values.detach().cpu().double(), torch.Generator().manual_seed(SEED)
    rows = max(1, min(RESAMPLES, 4_000_000 // len(v)))  # at most 32 MB of indices at once
    means = [v[torch.randint(len(v), (min(rows, RESAMPLES - i), len(v)), generator=g)].mean(1) for i in range(0, RESAMPLES, rows)]
    low, high = torch.quantile(torch.cat(means), torch.tensor([0.025, 0.975], dtype=torch.float64))
    return float(low), float(high)
