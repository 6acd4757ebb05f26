"""What a plan does to many samples: each against the uncached one of its seed, and all of them as a distribution."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import omnicache
from omnicache.kept.files import kept
from omnicache.kept.origin import digest, surroundings
from omnicache.measure.confidence95 import confidence95
from omnicache.measure.kid import kid
from omnicache.measure.likeness import likeness, shown
from omnicache.measure.ssim import ssim
from omnicache.measure.task import Task
from omnicache.plan import Plan

OTHER_SEEDS = 10_000_000
"""Added to the seeds of a task for the samples that KID compares with."""
FRAMES = 8
"""Of a clip, for KID."""


class Quality:
    """Draws all inputs of a task with a plan, and compares.

    KID is that of the samples to *uncached samples of other seeds*, in the features of the model's judge, so that it says what
    caching has changed in the distribution, and not how well the model was trained: the uncached samples' own is the floor. Of a
    clip eight frames are taken, evenly, beginning with the i-th of the i-th clip; its interval is over clips.

    Args:
        task: what is drawn: a few hundred pictures, or an eighth as many clips.
        batch: inputs in one call.
        folder: where the uncached samples are kept, so that they are drawn once.
    """

    def __init__(self, task: Task, batch: int = 8, folder: str | Path | None = None):
        self.task, self.batch, self.folder = task, batch, None if folder is None else Path(folder)

    @cached_property
    def uncached(self) -> Tensor:
        """The task's samples, ``(n, 3, h, w)`` or ``(n, f, 3, h, w)``."""
        return self._kept("uncached", self.task)

    @cached_property
    def reference(self) -> Tensor:
        """Features of uncached samples of other seeds, as :meth:`features` gives them."""
        return self.features(self._kept("other seeds", self.task.with_other_seeds(OTHER_SEEDS)))

    @cached_property
    def _floor(self) -> Tensor:
        return distances(self.reference, self.features(self.uncached))

    @torch.no_grad()
    def features(self, made: Tensor) -> Tensor:
        """Of samples, in the judge's last layer: ``(n, 1, d)``, or ``(n, 8, d)`` of clips."""
        if self.task.frames == 1:
            made = made[:, None]
        else:
            first, apart = torch.arange(len(made))[:, None], torch.arange(FRAMES) * self.task.frames // FRAMES
            made = made[first, (first + apart) % self.task.frames]
        found = torch.cat([self.task.judge.features(part) for part in made.flatten(0, 1).split(256)])
        return found.unflatten(0, made.shape[:2])

    def draw(self, plan: Plan | None = None, task: Task | None = None) -> tuple[Tensor, int]:
        """All samples, and the most bytes that the cache held."""
        task, parts, held = task or self.task, [], 0
        for start in range(0, len(task.inputs), self.batch):
            stop = min(start + self.batch, len(task.inputs))
            if plan is None:
                parts.append(task.draw(start, stop))
                continue
            with omnicache.cache(task.pipe, plan) as run:
                parts.append(task.draw(start, stop))
                held = max(held, run.cache_bytes)
        return torch.cat(parts), held

    def thinned(self, every: int) -> Quality:
        """The same on every so-manieth input, with the uncached samples that are there."""
        few = Quality(self.task.thinned(every), self.batch, self.folder)
        few.uncached, few.reference = self.uncached[::every], self.reference[::every]
        return few

    def of(self, plan: Plan | None) -> tuple[dict[str, Any], Tensor]:
        """Figures of a plan, as :meth:`judged` gives them, with ``cache_bytes``; and the samples it has drawn. ``None`` is the
        uncached pipeline."""
        made, held = (self.uncached, 0) if plan is None else self.draw(plan)
        return {"cache_bytes": held, **self.judged(made, compare=plan is not None)}, made

    def judged(self, made: Tensor, compare: bool = True) -> dict[str, Any]:
        """Figures of samples of all inputs.

        Returns:
            ``samples``; ``psnr`` (dB) and ``ssim`` to the uncached samples, one by one (of clips: the mean over their frames),
            ``kid``, ``recognised``, each as ``{"mean", "low", "high"}`` with the ends of the 95 % interval; ``psnr_each``. With
            ``compare`` also ``kid_above``, how much farther than the uncached samples these are: what both sets share, seeds and
            the labels of the reference, cancels out.
        """
        found: dict[str, Any] = {"samples": len(made)}
        if compare:
            found |= likeness95(made, self.uncached)
        made = shown(made)
        found["recognised"] = mean95(self.task.recognised(made).float())
        far = distances(self.reference, self.features(made))
        found["kid"] = kid95(far)
        if compare:
            found["kid_above"] = kid95(far - self._floor)
        return found

    def _kept(self, what: str, task: Task) -> Tensor:
        if self.folder is None:
            return self.draw(None, task)[0]
        about = [surroundings(task.pipe), task.settings, [[one.label, one.seed] for one in task.inputs], self.batch]
        return kept(self.folder / f"{task.name}-{what.replace(' ', '-')}-{digest(about)}.pt", lambda: self.draw(None, task)[0])


def likeness95(made: Tensor, uncached: Tensor) -> dict[str, Any]:
    """How like samples are to the uncached ones of their seeds: ``psnr``, ``ssim``, ``psnr_each``, as ``Quality.judged`` gives
    them. Shapes ``(n, 3, h, w)`` or ``(n, f, 3, h, w)``, in [0, 1]."""
    each = likeness(made, uncached)
    alike = ssim(shown(made).flatten(0, -4), uncached.flatten(0, -4)).view(len(made), -1).mean(1)
    return {"psnr": mean95(each), "ssim": mean95(alike), "psnr_each": each.tolist()}


def mean95(values: Tensor) -> dict[str, float]:
    """Mean of ``values``, ``(n,)``, and the ends of its 95 % interval."""
    low, high = confidence95(values)
    return {"mean": float(values.double().mean()), "low": low, "high": high}


def distances(reference: Tensor, features: Tensor) -> Tensor:
    """Kernel distances of 200 random halves of two sets ``(n, m, d)``, of m pictures that belong together each: ``(200,)``. Of sets
    of the same sizes they are the same halves, so that differences are pair by pair."""
    draw, found = torch.Generator().manual_seed(0), []
    for _ in range(200):
        a, b = (x[torch.randperm(len(x), generator=draw)[: len(x) // 2]].flatten(0, 1) for x in (reference, features))
        found.append(kid(a, b, subsets=1, subset_size=min(len(a), len(b)))[0])
    return torch.tensor(found, dtype=torch.float64)


def kid95(halves: Tensor) -> dict[str, float]:
    """The mean of :func:`distances`, or of their differences, and its 95 % interval.

    Drawn without replacement, halves differ from one another as much as whole sets of this size would (Politis and Romano's
    subsampling with its correction for finite samples), so their deviation is the error of the mean.
    """
    middle, deviation = float(halves.mean()), float(halves.std())
    return {"mean": middle, "low": middle - 1.96 * deviation, "high": middle + 1.96 * deviation}
