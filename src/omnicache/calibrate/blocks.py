"""Block Caching's schedule: how fast what each block adds changes, and how long it may be kept for that."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch

from omnicache.calibrate.gates.loop import Loop
from omnicache.calibrate.gates.modules import gated_sites
from omnicache.calibrate.increments import each_increment
from omnicache.calibrate.layered import remeasure
from omnicache.calibrate.layers.batches import batches
from omnicache.granularity import Transformers
from omnicache.kernels import change_of, change_sums
from omnicache.models.map import Site
from omnicache.plan import Plan
from omnicache.registry import Range
from omnicache.runtime.streams import Tensors
from omnicache.tables import Rows
from omnicache.weights import Weights

Profile = list[list[float]]
"""For each block the change of what it adds, by step; infinite where it is not known."""


def calibrate_block_caching(
    pipe: Any,
    inputs: Sequence[Any],
    call: dict[str, Any],
    progress: bool = True,
    *,
    threshold: Annotated[float, Range(0)] = 0.5,
    reuse: Annotated[float, Range(0, 0.98)] | None = None,
    scale_shift: bool = False,
    batch: Annotated[int, Range(1)] = 4,
) -> Plan:
    """Measure how much what each block adds changes from step to step, and keep it until that comes to ``threshold``
    (Block Caching, arXiv 2312.03209).

    Args:
        threshold: the change that is tolerated, accumulated since the last computation (the paper's delta).
        reuse: share of all blocks and steps to reuse, in place of ``threshold``: the smallest one is taken that reuses so many.
        scale_shift: whether what is kept is scaled and shifted, by channel and step, as fits the same runs best (least squares).
            A substitute for the paper's scale-shift layers, which are distilled in days on eight GPUs.
        batch: inputs that are drawn in one call.
    """
    from omnicache.methods.block_caching import block_caching

    loop, calls = Loop(pipe), batches(pipe, inputs, call, batch)
    sites = gated_sites("block-caching", loop.model, Transformers())
    found = profile(loop, calls, sites, progress)
    if reuse is not None:
        threshold = smallest(found, reuse)
    schedule = lifetimes(found, threshold)
    fits = fitted(loop, calls, sites, schedule, progress) if scale_shift else ()
    plan = block_caching(schedule=schedule, fits=fits)
    known = [[None if math.isinf(d) else d for d in row] for row in found]
    return plan.with_measured(change=known, threshold=threshold, **remeasure(pipe, calls, plan, 1))


def profile(loop: Loop, calls: Sequence[Mapping[str, Any]], sites: Sequence[Site], progress: bool = True) -> Profile:
    """``d[i][n]``: the relative L1 change of what block ``i`` adds, from step ``n - 1`` to ``n``, divided by its size at ``n``;
    the mean over samples and guidance branches of uncached runs."""
    before: dict[tuple[int, int], Tensors] = {}
    changes: dict[tuple[int, int], list[torch.Tensor]] = {}

    def see(step: int, site: int, place: int, x: Tensors, y: Tensors) -> None:
        now = tuple(b - a for a, b in zip(x, y, strict=True))
        last = before.get((site, place))
        if last is not None and [t.shape for t in last] == [t.shape for t in now]:
            sums = torch.stack([change_sums(b, a) for a, b in zip(now, last, strict=True)]).sum(0)
            changes.setdefault((site, step), []).append(change_of(sums).cpu())
        before[site, place] = now

    each_increment(loop, calls, sites, progress, "change of blocks", before.clear, see)

    def mean(i: int, n: int) -> float:
        known = changes.get((i, n))
        found = math.inf if not known else float(torch.cat(known).mean())
        return found if math.isfinite(found) else math.inf

    return [[mean(i, n) for n in range(loop.total)] for i in range(len(sites))]


def lifetimes(found: Profile, threshold: float) -> Rows:
    """The schedule: each block is kept while its changes since its last computation come to at most ``threshold``."""
    rows = []
    for changes in found:
        row, gathered = "", math.inf
        for n, change in enumerate(changes):
            gathered += change if n else math.inf
            reused = gathered <= threshold
            row += "." if reused else "#"
            gathered = gathered if reused else 0.0
        rows.append(row)
    return tuple(rows)


def fitted(
    loop: Loop, calls: Sequence[Mapping[str, Any]], sites: Sequence[Site], schedule: Rows, progress: bool = True
) -> tuple[tuple[Weights, ...], ...]:
    """Scales and shifts that bring what was kept, by ``schedule``, closest to what each block adds along uncached runs.

    For each block, and each tensor of what it gives, ``(2, steps, channels)``; ones and noughts at computed steps.
    """
    kept: dict[tuple[int, int], Tensors] = {}
    sums: dict[tuple[int, int, int], torch.Tensor] = {}  # by site, tensor and step: (5, channels)

    def see(step: int, site: int, place: int, x: Tensors, y: Tensors) -> None:
        now = tuple(b - a for a, b in zip(x, y, strict=True))
        old = kept.get((site, place))
        if schedule[site][step] == "#" or old is None:
            kept[site, place] = now
            return
        for k, (a, b) in enumerate(zip(old, now, strict=True)):
            p, q = (t.movedim(1 if t.ndim == 4 else -1, -1).flatten(0, -2).double() for t in (a, b))
            new = torch.stack((torch.full_like(p[0], len(p)), p.sum(0), q.sum(0), (p * p).sum(0), (p * q).sum(0))).cpu()
            sums[site, k, step] = sums.get((site, k, step), 0) + new

    each_increment(loop, calls, sites, progress, "scale and shift ", kept.clear, see)
    made = []
    for i, row in enumerate(schedule):
        tensors = sorted({k for site, k, _ in sums if site == i})
        made.append(tuple(Weights(_lines([sums.get((i, k, n)) for n in range(len(row))])) for k in tensors))
    return tuple(made)


def _lines(sums: Sequence[torch.Tensor | None]) -> torch.Tensor:
    """Slopes and intercepts, ``(2, steps, channels)``, from sums of ``1, x, y, x^2, x y``; the identity where there are none."""
    channels = next(s.shape[1] for s in sums if s is not None)
    found = torch.zeros(2, len(sums), channels)
    found[0] = 1
    for n, each in enumerate(sums):
        if each is None:
            continue
        count, x, y, xx, xy = each
        spread = xx / count - (x / count) ** 2
        known = spread > 1e-12 * (xx / count)
        slope = torch.where(known, (xy / count - x * y / count**2) / spread.clamp_min(1e-30), 1.0)
        found[0, n], found[1, n] = slope, (y - slope * x) / count
    return found


def smallest(found: Profile, reuse: float) -> float:
    """The smallest threshold that reuses at least a share ``reuse``, to a thousandth; the largest possible if none does."""

    def share(threshold: float) -> float:
        return sum(row.count(".") for row in lifetimes(found, threshold)) / sum(map(len, found))

    low, high = 0.0, 1 + sum(d for row in found for d in row if math.isfinite(d))
    if share(high) < reuse:
        return high
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if share(middle) >= reuse else (middle, high)
    return high


__all__ = ["calibrate_block_caching", "fitted", "lifetimes", "profile", "smallest"]
