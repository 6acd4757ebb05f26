"""FastCache's lines: what each block adds, as an affine function of what it is given, fitted by ridge regression."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch

from omnicache.calibrate.gates.loop import Loop
from omnicache.calibrate.gates.modules import gated_sites
from omnicache.calibrate.increments import each_increment
from omnicache.calibrate.layered import remeasure
from omnicache.calibrate.layers.batches import batches
from omnicache.granularity import Blocks
from omnicache.models.map import Site
from omnicache.plan import Plan
from omnicache.registry import Range
from omnicache.runtime.streams import Tensors
from omnicache.weights import Weights


def calibrate_fastcache(
    pipe: Any,
    inputs: Sequence[Any],
    call: dict[str, Any],
    progress: bool = True,
    *,
    threshold: Annotated[float, Range(0)] = 0.05,
    motion: float | None = 0.1,
    ridge: Annotated[float, Range(0)] = 1e-4,
    batch: Annotated[int, Range(1)] = 4,
) -> Plan:
    """Fit the line that stands for each block on uncached runs (FastCache).

    The release draws its maps at random and never fits them; what a skipped block gives is then noise.

    Args:
        threshold, motion: as in the method.
        ridge: weight of the penalty on a map's size, in units of the mean square of what the block is given.
        batch: inputs that are drawn in one call.
    """
    from omnicache.methods.fastcache import fastcache

    loop, calls = Loop(pipe), batches(pipe, inputs, call, batch)
    sites = gated_sites("fastcache", loop.model, Blocks())
    maps, errors = lines(loop, calls, sites, ridge, progress)
    plan = fastcache(maps=maps, threshold=threshold, motion=motion)
    return plan.with_measured(unexplained=errors, **remeasure(pipe, calls, plan, 1))


def lines(
    loop: Loop, calls: Sequence[Mapping[str, Any]], sites: Sequence[Site], ridge: float, progress: bool = True
) -> tuple[tuple[tuple[Weights, ...], ...], list[float]]:
    """For each site and each tensor that it gives a map ``(width + 1, width)`` of its increment; and for each site the share of
    its increments' square that the maps leave. Blocks that change the shape of their stream have none."""
    sums: dict[tuple[int, int], list[torch.Tensor]] = {}  # by site and tensor: X'X, X'R and the square of R, X with a one

    def see(step: int, site: int, place: int, x: Tensors, y: Tensors) -> None:
        for k, (a, b) in enumerate(zip(x, y, strict=True)):
            rows = a.flatten(0, -2).double()
            ones = torch.cat((rows, torch.ones_like(rows[:, :1])), 1)
            added = b.flatten(0, -2).double() - rows
            new = [(ones.T @ ones).cpu(), (ones.T @ added).cpu(), added.square().sum().cpu()]
            old = sums.get((site, k))
            sums[site, k] = new if old is None else [p + q for p, q in zip(old, new, strict=True)]

    each_increment(loop, calls, sites, progress, "lines of blocks", lambda: None, see)
    maps, left = [], []
    for i in range(len(sites)):
        mine, missed, whole = [], 0.0, 0.0
        for k in sorted(k for site, k in sums if site == i):
            square, product, size = sums[i, k]
            line = _ridge(square, product, ridge)
            mine.append(Weights(line.float()))
            missed += float(size - 2 * (line * product).sum() + (line * (square @ line)).sum())
            whole += float(size)
        maps.append(tuple(mine))
        left.append(max(missed, 0.0) / whole if whole else 0.0)
    return tuple(maps), left


def _ridge(square: torch.Tensor, product: torch.Tensor, ridge: float) -> torch.Tensor:
    """The line of least squares with a penalty on the map, and none on the intercept."""
    width = len(square) - 1
    penalty = torch.full((width + 1,), float(ridge * square.diagonal()[:-1].mean() + 1e-12), dtype=square.dtype)
    penalty[-1] = 0.0
    return torch.linalg.lstsq(square + penalty.diag(), product, driver="gelsd").solution


__all__ = ["calibrate_fastcache", "lines"]
