"""Plain torch forms of the few kernels that caching needs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch

AT_ONCE = 2**22
"""Numbers, similarities or widened features, that ``most_alike`` holds at a time: 16 MB."""


def weighted_sum(history: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """``sum_i weights[i] * history[i]``: every predictor that is linear in its history.

    Args:
        history: tensors of one shape and dtype, newest first.
        weights: as many numbers; entries of weight 0 are not read.

    Returns:
        A new tensor in the dtype of the history, summed in float32 or wider.
    """
    kind = history[0].dtype
    if len(history) == 2 and weights[0] == 1.0 and weights[1] != 0.0 and kind is history[1].dtype:
        # a residual, as at nearly every reused step: the short way
        if weights[1] == 1.0:  # torch itself adds half precision in float32 and rounds once
            return history[0] + history[1]
        if kind is torch.float32:  # in half precision torch would round the weight as well
            return torch.add(history[0], history[1], alpha=weights[1])
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


def take_rows(tensors: Sequence[torch.Tensor], index: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The kept rows of the features and of what goes with them, such as their positions.

    Args:
        tensors: each ``(n, width)``, with a width and dtype of its own.
        index: ``(groups, kept)`` int64, each from 0 to n - 1. Nothing looks whether they are: on a GPU that would be waited for.

    Returns:
        ``(groups, kept, width)`` for each tensor, new.
    """
    flat = index.reshape(-1)
    return tuple(t.index_select(0, flat).unflatten(0, index.shape) for t in tensors)


def inverse_of(index: torch.Tensor, n: int) -> torch.Tensor:
    """Where each of ``n`` rows stands among the flattened ``index``, ``(n,)`` int64; -1 if it is not there.

    Made once for an ``index``, it turns putting rows back into a plain read: no two places write to one.
    """
    flat = index.reshape(-1)
    places = torch.arange(flat.numel(), device=index.device)
    return torch.full((n,), -1, dtype=torch.int64, device=index.device).scatter_(0, flat, places)


def fill_rows(fresh: torch.Tensor, inverse: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """Fresh rows in their places and older ones in the rest, in what is returned and in ``kept``, which is written to.

    Args:
        fresh: ``(m, width)``; it must not share memory with ``kept``.
        inverse: ``(n,)`` int64: which fresh row stands here, -1 for none. Several places may name one.
        kept: ``(n, width)``: what was kept before; afterwards what is kept now.

    Returns:
        ``(n, width)`` in the dtype of ``kept``, with the same values and a storage of its own.
    """
    fresh = fresh.to(kept.dtype)
    if kept.device.type == "cpu" and not torch.compiler.is_compiling():
        places = (inverse >= 0).nonzero().flatten()  # fewer passes; a GPU would have to be waited for
        source = inverse[places]
        in_order = len(source) == len(fresh) and bool((source.diff() > 0).all())
        kept.index_copy_(0, places, fresh if in_order else fresh.index_select(0, source))
        return kept.clone(memory_format=torch.contiguous_format)
    if not fresh.shape[0]:
        return kept.clone(memory_format=torch.contiguous_format)
    rows = fresh.index_select(0, inverse.clamp_min(0))
    out = torch.where((inverse >= 0)[:, None], rows, kept)
    kept.copy_(out)
    return out


def most_alike(src: torch.Tensor, dst: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """For every row of ``src`` the most similar row of ``dst`` by cosine, within each group (ToMeSD, arXiv 2303.17604, matches so).

    Widened to float32 before anything is multiplied. A bounded number of similarities exists at once, whatever the sizes; the
    full matrix never does.

    Args:
        src: ``(groups, s, width)``.
        dst: ``(groups, d, width)``, d at least 1.

    Returns:
        ``(groups, s)`` float32 similarities, and ``(groups, s)`` int64 rows of ``dst``. Of equal ones the lowest is named; a
        row of zeros resembles nothing: 0. What rows that hold a NaN are given is some row of ``dst``, and any number.
    """
    (groups, s, width), d = src.shape, dst.shape[1]
    score = torch.empty(groups, s, dtype=torch.float32, device=src.device)
    match = torch.empty(groups, s, dtype=torch.int64, device=src.device)
    wide = max(d, width, 1)
    many, rows = max(1, AT_ONCE // (wide * max(s, 1))), max(1, AT_ONCE // wide)
    with torch.autocast(src.device.type, enabled=False) if src.device.type in ("cpu", "cuda") else nullcontext():
        for i in range(0, groups, many):
            some = slice(i, i + many)
            units = (dst[some].float() * over_norm(dst[some])[..., None]).mT
            for j in range(0, s, rows):
                part = src[some, j : j + rows]
                best, at = (part.float() @ units).max(-1)
                score[some, j : j + rows] = best * over_norm(part)
                match[some, j : j + rows] = at
    return score, match


def over_norm(x: torch.Tensor) -> torch.Tensor:
    """One over the length of each row ``(..., width)``, in float32 ``(...)``; of a row of zeros a finite number."""
    norm = torch.linalg.vector_norm(x, dim=-1, dtype=torch.promote_types(x.dtype, torch.float32)).float()
    return norm.clamp_min(torch.finfo(torch.float32).tiny).reciprocal()
