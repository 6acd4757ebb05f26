# pyright: reportMissingImports=false, reportArgumentType=false, reportIndexIssue=false, reportOperatorIssue=false
"""The most similar row, tile by tile with a running maximum: of the similarities only a tile exists at a time, in registers.

Products are summed in float32. Half-precision features are multiplied as they are, by the tensor cores and exactly, since the
product of two such numbers fits float32; float32 features as three TF32 products (``tf32x3``), which errs about as little as
float32 itself. Lengths divide the finished product, so no rounded unit vector is ever made.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from omnicache.kernels.reference import AT_ONCE, over_norm

KINDS = (torch.float16, torch.bfloat16, torch.float32)
LONG = 8192
"""From this width on, a row is a whole frame: there are few, and the programs share its length instead."""
WARPS = 4
PROGRAMS = 512
"""About so many share the lengths of long rows."""


@triton.jit
def _products(a, b, rows, cols, s, d, first, last, K: tl.constexpr, EVEN: tl.constexpr, PRECISION: tl.constexpr):
    """The products of a tile of rows of ``a`` and one of ``b``, over a part of their width."""
    total = tl.zeros((rows.shape[0], cols.shape[0]), tl.float32)
    for k in range(first, last, K):
        at = k + tl.arange(0, K)
        up = (rows < s)[:, None]
        down = (cols < d)[None, :]
        if not EVEN:
            up = up & (at < last)[None, :]
            down = down & (at < last)[:, None]
        x = tl.load(a + at[None, :], mask=up, other=0.0)
        y = tl.load(b + at[:, None], mask=down, other=0.0)
        total = tl.dot(x, y, total, input_precision=PRECISION)
    return total


@triton.jit
def _match(
    score, match, src, dst, over_src, over_dst, s, d, width, src_group, src_row, dst_group, dst_row,
    M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, EVEN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    group = tl.program_id(1).to(tl.int64)
    rows = tl.program_id(0) * M + tl.arange(0, M)
    a = src + group * src_group + rows.to(tl.int64)[:, None] * src_row
    best = tl.full((M,), float("-inf"), tl.float32)
    found = tl.zeros((M,), tl.int32)
    for start in range(0, d, N):
        cols = start + tl.arange(0, N)
        b = dst + group * dst_group + cols.to(tl.int64)[None, :] * dst_row
        total = _products(a, b, rows, cols, s, d, 0, width, K, EVEN, PRECISION)
        alike = total * tl.load(over_dst + group * d + cols, mask=cols < d, other=0.0)[None, :]
        alike = tl.where((cols < d)[None, :], alike, float("-inf"))
        top, at = tl.max(alike, 1, return_indices=True)  # of equal ones the leftmost
        better = top > best  # strictly, so that an earlier tile keeps what a later one only equals
        found = tl.where(better, tl.minimum(start + at, d - 1), found)
        best = tl.where(better, top, best)
    place = group * s + rows
    tl.store(score + place, best * tl.load(over_src + place, mask=rows < s, other=0.0), mask=rows < s)
    tl.store(match + place, found.to(tl.int64), mask=rows < s)


@triton.jit
def _part(
    parts, src, dst, groups, s, d, width, span, src_group, src_row, dst_group, dst_row,
    M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, EVEN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    tiles = tl.cdiv(d, N)
    group, piece = tl.program_id(2).to(tl.int64), tl.program_id(1)
    rows = (tl.program_id(0) // tiles) * M + tl.arange(0, M)
    cols = (tl.program_id(0) % tiles) * N + tl.arange(0, N)
    a = src + group * src_group + rows.to(tl.int64)[:, None] * src_row
    b = dst + group * dst_group + cols.to(tl.int64)[None, :] * dst_row
    total = _products(a, b, rows, cols, s, d, piece * span, tl.minimum((piece + 1) * span, width), K, EVEN, PRECISION)
    place = ((piece * groups + group) * s + rows)[:, None] * d + cols[None, :]
    tl.store(parts + place, total, mask=(rows < s)[:, None] & (cols < d)[None, :])


def tile_of(s: int, d: int, width: int, dtype: torch.dtype) -> dict[str, int | bool | str]:
    """Sizes of the tiles: small where there are few rows, and no wider in bytes for wider numbers."""
    m, n = (min(most, max(16, triton.next_power_of_2(size))) for size, most in ((s, 64), (d, 128)))
    k = 32 if dtype is torch.float32 else 64
    precision = "tf32x3" if dtype is torch.float32 else "ieee"
    return {"M": m, "N": n, "K": k, "EVEN": width % k == 0, "PRECISION": precision}


def most_alike(src: torch.Tensor, dst: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
    (groups, s, width), d = src.shape, dst.shape[1]
    if src.dtype not in KINDS or src.dtype is not dst.dtype or dst.shape != (groups, d, width) or not groups * s * d * width:
        return None
    if src.dtype is torch.bfloat16 and not src.is_cuda:
        return None  # the interpreter would multiply the bits as integers
    if src.stride(2) != 1 or dst.stride(2) != 1 or groups >= 2**16:
        return None
    tile, over_src, over_dst = tile_of(s, d, width, src.dtype), over_norm(src), over_norm(dst)
    m, n, k = (int(tile[name]) for name in "MNK")
    strides = src.stride(0), src.stride(1), dst.stride(0), dst.stride(1)
    if width < LONG:
        score = torch.empty(groups, s, dtype=torch.float32, device=src.device)
        match = torch.empty(groups, s, dtype=torch.int64, device=src.device)
        sizes = (s, d, width)
        _match[(triton.cdiv(s, m), groups)](score, match, src, dst, over_src, over_dst, *sizes, *strides, **tile, num_warps=WARPS)
        return score, match
    tiles = triton.cdiv(s, m) * triton.cdiv(d, n)
    pieces = max(1, min(PROGRAMS // (tiles * groups), AT_ONCE // (groups * s * d), triton.cdiv(width, 16 * k)))
    if groups * s * d > AT_ONCE:
        return None
    span = triton.cdiv(triton.cdiv(width, pieces), k) * k
    pieces = triton.cdiv(width, span)
    parts = torch.empty(pieces, groups, s, d, dtype=torch.float32, device=src.device)
    _part[(tiles, pieces, groups)](parts, src, dst, groups, s, d, width, span, *strides, **tile, num_warps=WARPS)
    best, match = (parts.sum(0) * over_dst[:, None, :]).max(-1)
    return best * over_src, match
