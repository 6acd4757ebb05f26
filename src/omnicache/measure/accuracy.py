"""Whether a classifier sees the class that was asked for."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from omnicache.errors import OmniCacheError

BATCH = 256


@torch.no_grad()
def accuracy(classifier: Callable[[Tensor], Tensor], pictures: Tensor, labels: Tensor) -> Tensor:
    """True for each picture whose highest logit is its label's, ``(n,)`` bool.

    ``.float().mean()`` is the usual figure.
    """
    if labels.shape != (len(pictures),):
        raise OmniCacheError(f"{len(pictures)} pictures need as many labels, these have the shape {tuple(labels.shape)}")
    if not len(pictures):
        return torch.zeros(0, dtype=torch.bool)
    return torch.cat([classifier(part).argmax(1) for part in pictures.split(BATCH)]) == labels.to(pictures.device)
