"""Kernel inception distance, in features of one's own."""

from __future__ import annotations

import torch
from torch import Tensor

from omnicache.errors import OmniCacheError
from omnicache.measure._check import check_features, torchmetrics


def kid(
    features_a: Tensor,
    features_b: Tensor,
    subsets: int = 100,
    subset_size: int = 100,
    generator: torch.Generator | None = None,
) -> tuple[float, float]:
    """Mean and standard deviation, over random subsets, of the unbiased squared MMD with KID's cubic kernel.

    The features may come from any network: it is Bińkowski et al.'s distance (2018), in another space than Inception's,
    and its size says something only beside another figure from the same network. It may be slightly negative.
    ``generator`` (CPU) picks the subsets; without one, a seed of 0 does.
    """
    check_features(features_a, features_b)
    fewest = min(len(features_a), len(features_b))
    if not 2 <= subset_size <= fewest:
        raise OmniCacheError(f"subset_size must be from 2 to the number of pictures, {fewest}; it is {subset_size}")
    if subsets < 1:
        raise OmniCacheError(f"subsets must be at least 1; it is {subsets}")
    poly_mmd = torchmetrics("image.kid").poly_mmd
    g = generator if generator is not None else torch.Generator().manual_seed(0)
    a, b = features_a.double(), features_b.double()

    def some(of: Tensor) -> Tensor:
        return of[torch.randperm(len(of), generator=g)[:subset_size].to(of.device)]

    found = torch.stack([poly_mmd(some(a), some(b)) for _ in range(subsets)])
    return float(found.mean()), float(found.std(unbiased=False))
