"""Distance to the nearest neighbour."""

from __future__ import annotations

import torch
from torch import Tensor

from omnicache.measure._check import check_features

ROWS = 1024


@torch.no_grad()
def nearest(features: Tensor, reference: Tensor) -> Tensor:
    """Euclidean distance of each of ``features`` ``(n, d)`` to the nearest of ``reference`` ``(m, d)``, ``(n,)``."""
    check_features(features, reference)
    # cdist loses small distances to cancellation: take out what all rows share, and let it only find the neighbour.
    middle = reference.float().mean(0)
    known, out = reference.float() - middle, []
    for part in (features.float() - middle).split(ROWS):
        at = torch.cdist(part, known).argmin(1)
        out.append((part - known[at]).norm(dim=1))
    return torch.cat(out)
