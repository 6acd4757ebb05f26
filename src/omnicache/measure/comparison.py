"""Methods against the uncached pipeline: same inputs, same seeds, same machine, interleaved in time."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

import omnicache
from omnicache import words
from omnicache.integrations.pipelines import denoisers
from omnicache.kept.origin import machine
from omnicache.measure.flops import denoiser_flops
from omnicache.measure.likeness import likeness, shown
from omnicache.measure.ssim import ssim
from omnicache.measure.stopwatch import Stopwatch
from omnicache.now import now
from omnicache.plan import Plan


@dataclass(frozen=True)
class Contender:
    """A plan to measure, under a label for people."""

    label: str
    plan: Plan
    note: str | None = None


class Comparison:
    """Measures plans on one pipeline, batch by batch, so that speed, work and quality belong to the same runs.

    The first ``repeats`` batches are timed, each in a pair with the uncached pipeline, in alternating order. Work is counted
    operation by operation in runs of its own, since counting would spoil a timing: for methods that decide by what they see on
    all batches, for others on those that are not timed. Such methods may decide otherwise in larger batches.

    Args:
        pipe: a diffusers pipeline with one denoiser.
        call: ``call(start, stop)`` draws these of a fixed list of inputs, with fixed seeds: pictures ``(n, 3, h, w)`` or clips
            ``(n, f, 3, h, w)`` in [0, 1]. PSNR and SSIM are means over the pictures, or over all frames.
        images: how many to draw.
        batch: how many at once.
        repeats: timed pairs.
        judge: ``judge(pictures)`` gives the share of what was drawn that shows what was asked for; None where nobody can tell.
    """

    def __init__(
        self,
        pipe: Any,
        call: Callable[[int, int], torch.Tensor],
        images: int = 16,
        batch: int = 2,
        repeats: int = 3,
        judge: Callable[[torch.Tensor], float] | None = None,
    ):
        self.call, self.judge, self.pipe = call, judge, pipe
        self.batches = [(i, min(i + batch, images)) for i in range(0, images, batch)]
        self.repeats = repeats
        self.denoiser = denoisers(pipe)[0]
        self.pictures: dict[str, torch.Tensor] = {}
        self._base_flops: dict[tuple[int, int], int] = {}

    def baseline(self) -> dict[str, Any]:
        """The uncached pipeline: seconds for all pictures (median batch times batches), in all and in the denoiser; accuracy."""
        self.call(*self.batches[0])  # warm-up: allocations, thread pools, lazy imports
        walls, inside, drawn = [], [], []
        for batch in self.batches:
            wall, seconds, pictures = self._timed(batch)
            walls.append(wall)
            inside.append(seconds)
            drawn.append(pictures)
        self.pictures["uncached"] = torch.cat(drawn)
        return self._figures(walls, inside, self.pictures["uncached"])

    def measure(self, contender: Contender) -> dict[str, Any]:
        """One row of the table.

        Raises:
            OmniCacheError: the plan does not fit the pipeline.
        """
        plan = contender.plan
        walls, inside, ratios, fractions, drawn, traces = [], [], [], [], [], []
        for i in range(max(self.repeats, len(self.batches))):
            batch = self.batches[i % len(self.batches)]
            timed, pictures = i < self.repeats, torch.empty(0)
            if timed:
                plain = self._timed(batch)[1] if i % 2 == 0 else None
                with omnicache.cache(self.pipe, plan) as run:
                    wall, seconds, pictures = self._timed(batch)
                    traces.append(run.trace)
                plain = self._timed(batch)[1] if plain is None else plain
                walls.append(wall)
                inside.append(seconds)
                ratios.append(plain / seconds)
            if not timed or not fractions or (decides(plan) and i < len(self.batches)):
                with omnicache.cache(self.pipe, plan) as run:
                    done, pictures = self._counted(batch)
                    traces.append(run.trace)
                fractions.append(done / self._base(batch))
            if i < len(self.batches):
                drawn.append(pictures)
        made, base = torch.cat(drawn), self.pictures["uncached"]
        self.pictures[contender.label] = made
        notes = list(dict.fromkeys(n for t in traces for n in t.notes))
        return {
            "method": plan.method,
            "label": contender.label,
            "options": words.plain(plan.options),
            **self._figures(walls, inside, made),
            "speedup": statistics.median(ratios) if ratios else None,
            "speedup_spread": _middle_half(ratios),
            "compute_fraction": statistics.fmean(fractions),
            "psnr": None if torch.equal(made, base) else float(likeness(made, base).mean()),
            "ssim": float(ssim(made.flatten(0, -4), base.flatten(0, -4)).mean()),
            "cache_bytes": max(t.peak_bytes for t in traces),
            "computed": traces[0].computed,
            "note": contender.note or (" ".join(notes) or None),
        }

    def _figures(self, walls: list[float], inside: list[float], pictures: torch.Tensor) -> dict[str, Any]:
        return {
            "seconds": statistics.median(walls) * len(self.batches) if walls else None,
            "denoiser_seconds": statistics.median(inside) * len(self.batches) if inside else None,
            "class_accuracy": self.judge(pictures) if self.judge else None,
        }

    def _timed(self, batch: tuple[int, int]) -> tuple[float, float, torch.Tensor]:
        with Stopwatch(self.denoiser) as watch:
            began = now()
            pictures = self.call(*batch)
            return now() - began, watch.seconds, shown(pictures)

    def _counted(self, batch: tuple[int, int]) -> tuple[int, torch.Tensor]:
        drawn: list[torch.Tensor] = []
        flops = denoiser_flops(self.denoiser, lambda: drawn.append(self.call(*batch)))
        return flops, shown(drawn[0])

    def _base(self, batch: tuple[int, int]) -> int:
        """The uncached work of a batch; it depends on the number of pictures only."""
        size = (0, batch[1] - batch[0])
        if size not in self._base_flops:
            self._base_flops[size] = self._counted(size)[0]
        return self._base_flops[size]


def _middle_half(ratios: list[float]) -> list[float] | None:
    """Lower and upper quartile: one pair disturbed by another program says nothing about the method."""
    if len(ratios) < 2:
        return ratios * 2 or None
    low, _, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return [low, high]


def decides(plan: Plan) -> bool:
    """Whether a plan's steps depend on what it sees."""
    return any(t.signals or t.check is not None for t in plan.triggers)


def environment(device: torch.device) -> dict[str, Any]:
    """What the figures depend on beside the code."""
    load = [round(v, 2) for v in os.getloadavg()] if hasattr(os, "getloadavg") else []
    return {"device": machine(device), "torch": torch.__version__, "load_average": load}


def rounded(part: Any, digits: int = 4) -> Any:
    """Numbers of a JSON object, rounded."""
    if isinstance(part, float):
        return round(part, digits)
    if isinstance(part, Mapping):
        return {k: rounded(v, digits) for k, v in part.items()}
    if isinstance(part, (list, tuple)):
        return [rounded(v, digits) for v in part]
    return part


def finite(part: Any) -> Any:
    """Without NaN and infinities, which JSON does not have: None in their place."""
    if isinstance(part, dict):
        return {k: finite(v) for k, v in part.items()}
    if isinstance(part, list):
        return [finite(v) for v in part]
    return None if isinstance(part, float) and not math.isfinite(part) else part
