# pyright: reportMissingImports=false, reportArgumentType=false, reportIndexIssue=false, reportOperatorIssue=false
"""Taking kept rows out and putting fresh ones back: each number is read once and written where it belongs, none is added.

Where each row goes is known before (``inverse_of``), so nothing is written by two programs and no order can matter.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

KINDS = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int32, torch.int64)
TILE = 4096
"""Numbers that one program moves."""
WIDEST = 512
"""Columns that it moves of one row."""
WARPS = 4


@triton.jit
def _take(out, x, index, m, width, stride, ROWS: tl.constexpr, COLS: tl.constexpr, EVEN: tl.constexpr):
    tiles = tl.cdiv(width, COLS)
    row = (tl.program_id(0) // tiles).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    col = (tl.program_id(0) % tiles) * COLS + tl.arange(0, COLS)
    live = (row < m)[:, None] if EVEN else (row < m)[:, None] & (col < width)[None, :]
    source = tl.load(index + row, mask=row < m, other=0).to(tl.int64)
    moved = tl.load(x + source[:, None] * stride + col[None, :], mask=live)
    tl.store(out + row[:, None] * width + col[None, :], moved, mask=live)


@triton.jit
def _fill(out, kept, fresh, inverse, n, width, stride, ROWS: tl.constexpr, COLS: tl.constexpr, EVEN: tl.constexpr):
    tiles = tl.cdiv(width, COLS)
    row = (tl.program_id(0) // tiles).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    col = (tl.program_id(0) % tiles) * COLS + tl.arange(0, COLS)
    source = tl.load(inverse + row, mask=row < n, other=-1).to(tl.int64)
    new = ((row < n) & (source >= 0))[:, None]
    old = ((row < n) & (source < 0))[:, None]
    if not EVEN:
        new = new & (col < width)[None, :]
        old = old & (col < width)[None, :]
    place = row[:, None] * width + col[None, :]
    made = tl.load(fresh + source[:, None] * stride + col[None, :], mask=new)
    held = tl.load(kept + place, mask=old)
    tl.store(kept + place, made, mask=new)  # only what is new: the rest is there
    tl.store(out + place, tl.where(new, made, held), mask=new | old)


def shape_of(width: int) -> dict[str, int | bool]:
    """How a program's tile lies over rows of this width."""
    cols = min(WIDEST, triton.next_power_of_2(width))
    return {"ROWS": max(1, min(64, TILE // cols)), "COLS": cols, "EVEN": width % cols == 0}


def _programs(rows: int, width: int, tile: dict[str, int | bool]) -> tuple[int]:
    return (triton.cdiv(rows, int(tile["ROWS"])) * triton.cdiv(width, int(tile["COLS"])),)


def _in_rows(x: torch.Tensor) -> bool:
    """A table of rows whose numbers lie side by side."""
    return x.ndim == 2 and x.dtype in KINDS and (x.stride(1) == 1 or x.shape[1] == 1)


def take_rows(tensors: Sequence[torch.Tensor], index: torch.Tensor) -> tuple[torch.Tensor, ...] | None:
    if not all(map(_in_rows, tensors)) or index.dtype != torch.int64:
        return None
    flat, made = index.reshape(-1).contiguous(), []
    for x in tensors:
        width, m = x.shape[1], flat.numel()
        out = torch.empty((*index.shape, width), dtype=x.dtype, device=x.device)
        if out.numel():
            tile = shape_of(width)
            _take[_programs(m, width, tile)](out, x, flat, m, width, x.stride(0), **tile, num_warps=WARPS)
        made.append(out)
    return tuple(made)


def fill_rows(fresh: torch.Tensor, inverse: torch.Tensor, kept: torch.Tensor) -> torch.Tensor | None:
    if not (_in_rows(fresh) and _in_rows(kept) and kept.is_contiguous() and inverse.dtype == torch.int64 and fresh.shape[0]):
        return None
    rows, inverse, (n, width) = fresh.to(kept.dtype), inverse.contiguous(), kept.shape
    if rows.shape[1] != width or inverse.shape != (n,):
        return None  # the reference says what is wrong
    out = torch.empty_like(kept)
    if out.numel():
        tile = shape_of(width)
        _fill[_programs(n, width, tile)](out, kept, rows, inverse, n, width, rows.stride(0), **tile, num_warps=WARPS)
    return out
