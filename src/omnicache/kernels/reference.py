"""Plain torch forms of the few kernels that caching needs."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def weighted_sum(history: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """``sum_i weights[i] * history[i]``: every predictor that is linear in its history.

    Args:
        history: tensors of one shape and dtype, newest first.
        weights: as many numbers; entries of weight 0 are not read.

    Returns:
        A new tensor in the dtype of the history, summed in float32 or wider.
    """
    kind = history[0].dtype
    if len(history) == 2 and weights[0] == 1.0 and weights[1] != 0.0 and kind is torch.float32 is history[1].dtype:
        # a residual, as at nearly every reused step: the short way
        return history[0] + history[1] if weights[1] == 1.0 else torch.add(history[0], history[1], alpha=weights[1])
    wide = torch.promote_types(kind, torch.float32)
    used = [(h, w) for h, w in zip(history, weights, strict=True) if w != 0.0]
    if not used:
        return torch.zeros_like(history[0])
    first, rest = used[0], used[1:]
    if first[1] == 1.0 and rest:  # the usual case of a residual: one pass and one allocation less
        total = torch.add(first[0].to(wide), rest[0][0].to(wide), alpha=rest[0][1])
        rest = rest[1:]
    else:
        total = first[0].to(wide) * first[1]
    for tensor, weight in rest:
        total.add_(tensor.to(wide), alpha=weight)
    return total.to(kind)


def change_sums(now: torch.Tensor, before: torch.Tensor, norm: str = "l1") -> torch.Tensor:
    """What a relative change is made of, ``(2, batch)`` in float32: sums that processes with a part of the tokens each can add."""
    diff, base = (now - before).flatten(1).float(), before.flatten(1).float()
    if norm == "l1":
        return torch.stack((diff.abs().sum(1), base.abs().sum(1)))
    return torch.stack((diff.square().sum(1), base.square().sum(1)))


def change_of(sums: torch.Tensor, norm: str = "l1") -> torch.Tensor:
    """The relative change, ``(batch,)``, from its sums."""
    top, bottom = sums
    ratio = torch.where(top == 0, torch.zeros_like(top), top / bottom)
    return ratio if norm == "l1" else ratio.sqrt()


def relative_change(now: torch.Tensor, before: torch.Tensor, norm: str = "l1") -> torch.Tensor:
    """Relative change per sample, ``sum|now - before| / sum|before|`` ("l1") or the root of the squares' ratio ("l2").

    Args:
        now, before: ``(batch, ...)`` of one shape.

    Returns:
        ``(batch,)`` in float32. Both zero gives 0; a change from zero gives infinity.
    """
    return change_of(change_sums(now, before, norm), norm)


def gather_rows(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Rows ``index`` ``(batch, k)`` of ``x`` ``(batch, n, width)``: ``(batch, k, width)``."""
    return torch.gather(x, 1, index[..., None].expand(-1, -1, x.shape[-1]))


def scatter_rows(x: torch.Tensor, index: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """A copy of ``x`` ``(batch, n, width)`` with ``rows`` ``(batch, k, width)`` in the places ``index`` ``(batch, k)``."""
    return x.scatter(1, index[..., None].expand(-1, -1, x.shape[-1]), rows.to(x.dtype))
