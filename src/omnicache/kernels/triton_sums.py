# pyright: reportMissingImports=false, reportArgumentType=false, reportIndexIssue=false, reportOperatorIssue=false
"""Weighted sums of a history, and the sums of a change: every tensor is read once, whatever their number."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

KINDS = (torch.float16, torch.bfloat16, torch.float32)
MOST = 8
"""Tensors in one sum."""
BLOCK = 2048
"""Numbers of each tensor that one program adds up at a time."""
WARPS = 8
PROGRAMS = 2048
"""About so many, at most, measure a change; each goes over several blocks, and the parts are summed in a fixed order."""


@triton.jit
def _weighted_sum(out, x0, x1, x2, x3, x4, x5, x6, x7, w0, w1, w2, w3, w4, w5, w6, w7, n, COUNT: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = at < n
    total = tl.load(x0 + at, mask=live).to(tl.float32) * w0
    if COUNT > 1:
        total += tl.load(x1 + at, mask=live).to(tl.float32) * w1
    if COUNT > 2:
        total += tl.load(x2 + at, mask=live).to(tl.float32) * w2
    if COUNT > 3:
        total += tl.load(x3 + at, mask=live).to(tl.float32) * w3
    if COUNT > 4:
        total += tl.load(x4 + at, mask=live).to(tl.float32) * w4
    if COUNT > 5:
        total += tl.load(x5 + at, mask=live).to(tl.float32) * w5
    if COUNT > 6:
        total += tl.load(x6 + at, mask=live).to(tl.float32) * w6
    if COUNT > 7:
        total += tl.load(x7 + at, mask=live).to(tl.float32) * w7
    tl.store(out + at, total.to(out.dtype.element_ty), mask=live)


def weighted_sum(history: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor | None:
    first = history[0]
    used = [(h, float(w)) for h, w in zip(history, weights, strict=True) if w != 0.0]
    if not 0 < len(used) <= MOST or first.dtype not in KINDS:
        return None
    if len(used) == 2 and used[0][0].dtype is used[1][0].dtype is first.dtype and used[0][1] == used[1][1] == 1.0:
        return None  # torch adds two in one pass as well, and is launched sooner
    out, n = torch.empty_like(first), first.numel()
    together = all(h.is_contiguous() for h, _ in used) and first.is_contiguous()
    if not together and any(h.stride() != out.stride() for h in (first, *(h for h, _ in used))):
        return None  # a dense layout is kept by empty_like, so this one has gaps or turns some axes only in some
    if any(h.shape != first.shape or h.dtype not in KINDS for h, _ in used):
        return None
    if n:
        tensors = [h for h, _ in used] + [used[0][0]] * (MOST - len(used))
        scales = [w for _, w in used] + [0.0] * (MOST - len(used))
        _weighted_sum[(triton.cdiv(n, BLOCK),)](out, *tensors, *scales, n, COUNT=len(used), BLOCK=BLOCK, num_warps=WARPS)
    return out


@triton.jit
def _change(parts, now, before, length, span, chunks, SQUARES: tl.constexpr, BLOCK: tl.constexpr):
    chunk, sample = tl.program_id(0), tl.program_id(1)
    base = sample.to(tl.int64) * length
    stop = tl.minimum((chunk + 1) * span, length)
    top = tl.zeros([BLOCK], tl.float32)
    bottom = tl.zeros([BLOCK], tl.float32)
    for start in range(chunk * span, stop, BLOCK):
        at = start + tl.arange(0, BLOCK)
        live = at < stop
        a = tl.load(now + base + at, mask=live, other=0.0).to(tl.float32)
        b = tl.load(before + base + at, mask=live, other=0.0).to(tl.float32)
        d = (a - b).to(now.dtype.element_ty).to(tl.float32)  # rounded as torch rounds a difference in half precision
        if SQUARES:
            top += d * d
            bottom += b * b
        else:
            top += tl.abs(d)
            bottom += tl.abs(b)
    place = sample * chunks + chunk
    tl.store(parts + place, tl.sum(top, 0))
    tl.store(parts + tl.num_programs(1) * chunks + place, tl.sum(bottom, 0))


def change_sums(now: torch.Tensor, before: torch.Tensor, norm: str) -> torch.Tensor | None:
    batch, fits = now.shape[0] if now.ndim else 0, now.dtype in KINDS and now.dtype is before.dtype and now.shape == before.shape
    if not (fits and batch and now.numel() and now.ndim > 1 and now.is_contiguous() and before.is_contiguous()):
        return None
    length = now.numel() // batch
    blocks = triton.cdiv(length, BLOCK)
    span = triton.cdiv(blocks, max(1, PROGRAMS // batch)) * BLOCK
    chunks = triton.cdiv(length, span)
    if length + span >= 2**31 or batch >= 2**16:
        return None
    parts = torch.empty(2, batch, chunks, dtype=torch.float32, device=now.device)
    _change[(chunks, batch)](parts, now, before, length, span, chunks, SQUARES=norm != "l1", BLOCK=BLOCK, num_warps=WARPS)
    return parts.sum(-1)
