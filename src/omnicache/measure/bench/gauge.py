"""One plan measured: on a few samples, then on all."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from typing import Any

import torch

import omnicache
from omnicache.integrations.pipelines import denoisers
from omnicache.measure.bench.size import Size
from omnicache.measure.comparison import decides
from omnicache.measure.flops import denoiser_flops
from omnicache.measure.quality import Quality, likeness95, mean95
from omnicache.measure.speed import Pair, median95, pair
from omnicache.plan import Plan


class Gauge:
    """Measures plans on the samples of a task.

    Figures are ``{"mean", "low", "high"}`` (of speedup ``{"median", "low", "high"}``) with the ends of the 95 % interval.
    """

    def __init__(self, quality: Quality, size: Size):
        self.quality, self.task, self.size = quality, quality.task, size
        self.batches = [(i, min(i + size.batch, size.samples)) for i in range(0, size.samples, size.batch)]
        self.early = self.batches[: -(-size.first // size.batch)]
        self._base: dict[int, int] = {}

    def first(self, plan: Plan) -> tuple[dict[str, Any], torch.Tensor]:
        """Figures on the first samples, and these.

        Returns:
            ``psnr``, ``psnr_each``, ``ssim``, ``recognised``, ``speedup``, ``pairs`` (seconds of each, uncached and cached),
            ``compute_fraction`` (share of the operations), ``cache_bytes``, ``computed``, ``notes``.
        """
        count = self.batches[0][1] if decides(plan) else 1  # the share is the same for any number, and counting is slow
        with omnicache.cache(self.task.pipe, plan):
            done = self._counted(count)
        if count not in self._base:
            self._base[count] = self._counted(count)
        pairs = self._pairs(plan, self.early, 0)
        made = torch.cat([one.made for one in pairs])
        traces = [one.run.trace for one in pairs]
        figures = {
            "samples": len(made),
            **likeness95(made, self.quality.uncached[: len(made)]),
            "recognised": mean95(self.task.recognised(made).float()),
            "compute_fraction": done / self._base[count],
            "cache_bytes": max(one.run.cache_bytes for one in pairs),
            "computed": traces[0].computed,
            "notes": list(dict.fromkeys(note for trace in traces for note in trace.notes)),
        }
        return {**figures, **timing([[one.uncached, one.cached] for one in pairs], self.size.batch)}, made

    def closely(self, plan: Plan, known: Sequence[Sequence[float]]) -> dict[str, Any]:
        """Figures on all samples, with ``kid``. ``known`` are the pairs that were timed on the first batches."""
        timed = self.batches[len(known) : self.size.pairs]
        pairs = dict(zip(timed, self._pairs(plan, timed, len(known)), strict=True))
        parts = []
        for batch in self.batches:
            if batch in pairs:
                parts.append(pairs[batch].made)
                continue
            with omnicache.cache(self.task.pipe, plan):
                parts.append(self.task.draw(*batch))
        took = [*known, *([one.uncached, one.cached] for one in pairs.values())]
        return {**self.quality.judged(torch.cat(parts)), **timing(took, self.size.batch)}

    def _pairs(self, plan: Plan, batches: Sequence[tuple[int, int]], since: int) -> list[Pair]:
        draw = self.task.draw
        return [pair(self.task.pipe, lambda: draw(*b), plan, (i + since) % 2 == 0) for i, b in enumerate(batches)]

    def _counted(self, count: int) -> int:
        return denoiser_flops(denoisers(self.task.pipe)[0], lambda: self.task.draw(0, count))


def timing(pairs: Sequence[Sequence[float]], batch: int) -> dict[str, Any]:
    """Figures of pairs of seconds, uncached and cached; ``seconds`` is what the denoiser takes for one sample."""
    return {
        "speedup": median95([a / b for a, b in pairs]),
        "seconds": statistics.median(b for _, b in pairs) / batch,
        "pairs": [list(one) for one in pairs],
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }
