"""Element-wise work of the caches, and the matching of rows.

Each is plain torch (``reference.py``), which defines what it does, and most have a twin in Triton (``triton_*.py``) that does the
same in one pass where the tensors are on a CUDA device; ``dispatch.py`` says when it is taken.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from omnicache.kernels import dispatch, reference
from omnicache.kernels.reference import change_of, inverse_of

__all__ = [
    "change_of",
    "change_sums",
    "fill_rows",
    "inverse_of",
    "most_alike",
    "relative_change",
    "take_rows",
    "weighted_sum",
]


def weighted_sum(history: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    if history[0].is_cuda or dispatch.FORCED:
        made = dispatch.attempt("weighted_sum", history, history, weights)
        if made is not None:
            return made
    return reference.weighted_sum(history, weights)


def change_sums(now: torch.Tensor, before: torch.Tensor, norm: str = "l1") -> torch.Tensor:
    if now.is_cuda or dispatch.FORCED:
        made = dispatch.attempt("change_sums", (now, before), now, before, norm)
        if made is not None:
            return made
    return reference.change_sums(now, before, norm)


def relative_change(now: torch.Tensor, before: torch.Tensor, norm: str = "l1") -> torch.Tensor:
    return change_of(change_sums(now, before, norm), norm)


def take_rows(tensors: Sequence[torch.Tensor], index: torch.Tensor) -> tuple[torch.Tensor, ...]:
    if index.is_cuda or dispatch.FORCED:
        made = dispatch.attempt("take_rows", (index, *tensors), tensors, index)
        if made is not None:
            return made
    return reference.take_rows(tensors, index)


def fill_rows(fresh: torch.Tensor, inverse: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    if kept.is_cuda or dispatch.FORCED:
        made = dispatch.attempt("fill_rows", (kept, fresh, inverse), fresh, inverse, kept)
        if made is not None:
            return made
    return reference.fill_rows(fresh, inverse, kept)


def most_alike(src: torch.Tensor, dst: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    if src.is_cuda or dispatch.FORCED:
        made = dispatch.attempt("most_alike", (src, dst), src, dst)
        if made is not None:
            return made
    return reference.most_alike(src, dst)


for _kernel in (weighted_sum, change_sums, relative_change, take_rows, fill_rows, most_alike):
    _kernel.__doc__ = getattr(reference, _kernel.__name__).__doc__
