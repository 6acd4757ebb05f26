"""What uncached runs tell of reuse: the path, the noise that old values would add at each step, how it grows and carries over."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from omnicache.calibrate import geometry
from omnicache.calibrate.between import between
from omnicache.calibrate.record import Recorder, each_run, one_denoiser, watched
from omnicache.errors import OmniCacheError
from omnicache.granularity import MLP, Attention, Stack
from omnicache.plan import Plan
from omnicache.policy import Policy, Predictor, Where
from omnicache.predictors import Hold, Residual
from omnicache.runtime.step import Step
from omnicache.triggers import Every, Table

Carried = tuple[tuple[float | None, ...], list[float]]
"""Per step the number that carries the noise to it (None at computed steps), and the cosine behind it."""


class Uncached:
    """Uncached runs of a pipeline, one an input, made when this is made and whenever a question needs more of them.

    Noise ``q`` is the denoiser's output with an old value less its true output, on the same input (arXiv 2508.16212, eq. 6).

    Attributes:
        steps: evaluations of the denoiser in a run.
        paths: for each input the sampling path in three dimensions, ``(steps + 1, 3)``.
        channels: leading channels of the output that carry the mean, where the model predicts a variance beside it; else None.
    """

    def __init__(
        self,
        pipe: Any,
        inputs: Sequence[Any],
        call: dict[str, Any],
        progress: bool = True,
        granularity: str = "stack",
        inside: Plan | None = None,
    ) -> None:
        one_denoiser(pipe)
        self.pipe, self.inputs, self.call, self.progress, self.inside = pipe, inputs, call, progress, inside
        self.where: Where = Stack() if granularity == "stack" else Attention() | MLP()
        self.how: Predictor = Residual(Hold(3)) if granularity == "stack" else Hold(3)
        self.steps = 0
        self.paths: list[torch.Tensor] = []
        self.channels: int | None = None
        self._norms: dict[tuple[int, int], list[float]] = {}
        self._products: dict[int, tuple[float, float, float]] = {}
        self._sigmas: dict[int, float] = {}
        self._ends: list[torch.Tensor] = []
        self._growth: dict[int, list[float]] = {}
        self._measure()

    def norm(self, age: int, i: int) -> float:
        """Root mean square over the inputs of ``||q_i||``, for a value ``age`` steps old; infinite where none is."""
        found = self._norms.get((age, i), [])
        return (sum(found) / len(found)) ** 0.5 if found else float("inf")

    @property
    def slopes(self) -> list[float]:
        """``<q_i, q_{i-1}> / ||q_{i-1}||^2`` of one step old values."""
        return [p[0] / p[1] if (p := self._products.get(i)) and p[1] > 0 else 0.0 for i in range(self.steps)]

    @property
    def cosines(self) -> list[float]:
        return [p[0] / (p[1] * p[2]) ** 0.5 if (p := self._products.get(i)) and p[1] * p[2] > 0 else 0.0 for i in range(self.steps)]

    @property
    def crossing(self) -> int:
        """The first step at which the latent holds no more noise than signal."""
        even = 0.5 if _flows(self.pipe.scheduler) else 1.0
        return next((i for i in range(self.steps) if self._sigmas.get(i, math.inf) <= even), self.steps)

    def _noise(self, estimate: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        return (estimate - truth)[:, : self.channels].float()

    def _measure(self) -> None:
        """The path, and the noise of old values along it."""
        latents: list[torch.Tensor] = []
        before: dict[Any, torch.Tensor] = {}

        def look(step: Step, truth: torch.Tensor, rehearsed: tuple[torch.Tensor, ...]) -> None:
            if latents and truth.ndim == latents[0].ndim > 3 and truth.shape[1] == 2 * latents[0].shape[1]:
                self.channels = latents[0].shape[1]
            self.steps = max(self.steps, step.index + 1)
            if step.sigma is not None:
                self._sigmas[step.index] = step.sigma
            for age, estimate in enumerate(rehearsed, start=1):
                q = self._noise(estimate, truth)
                self._norms.setdefault((age, step.index), []).append(float(q.square().sum()))
                if age == 1:
                    if (last := before.get(step.branch)) is not None:
                        new = float((q * last).sum()), float(last.square().sum()), float(q.square().sum())
                        old = self._products.get(step.index, (0.0, 0.0, 0.0))
                        self._products[step.index] = (old[0] + new[0], old[1] + new[1], old[2] + new[2])
                    before[step.branch] = q

        recorder = Recorder(look, lambda step: tuple(range(min(step.index, 3))))
        with watched(self.pipe, Policy(Every(1), self.where, self.how, fix=recorder), latents, self.inside) as session:
            for _, run in each_run(self.pipe, self.inputs, self.call, self.progress, "the path      "):
                latents.clear()
                before.clear()
                run()
                self.paths.append(geometry.project(geometry.gram(latents)))
                self._ends.append(latents[-1])
            if self.steps > 1 and not self._norms:
                why = " ".join(session.trace.notes) or "No value that could be kept was computed in its runs."
                raise OmniCacheError(
                    f"{type(session.model.model).__name__} cannot be calibrated, because nothing of it could be reused. {why} "
                    "Try another granularity, or a method that needs no calibration: `omnicache methods` lists them all."
                )

    def growth(self, probes: int) -> list[float]:
        """For every step, the error of the final latent for each unit of noise added there.

        Measured on the first ``probes`` inputs with one reuse injected into an otherwise uncached run, at ten steps that lie
        closer at the start, where it changes fastest; in between it is interpolated on a log scale.
        """
        if probes in self._growth:
            return self._growth[probes]
        total, latents = self.steps, list[torch.Tensor]()
        places = sorted({1 + round((total - 2) * (k / 9) ** 2) for k in range(10)})
        found: dict[int, float] = {}
        for place in places:
            marks = "".join("." if i == place else "#" for i in range(total))
            squares = []
            with watched(self.pipe, Policy(Table(marks), self.where, self.how), latents, self.inside):
                for i, run in each_run(self.pipe, self.inputs[:probes], self.call, self.progress, f"error at {place:4d} "):
                    latents.clear()
                    run()
                    squares.append(float((latents[-1] - self._ends[i]).square().sum()))
            if math.isinf(self.norm(1, place)):
                continue  # nothing was reused there
            # Where a reuse adds no noise at all there is nothing to grow, and any number does.
            found[place] = max((sum(squares) / len(squares)) ** 0.5, 1e-12) / max(self.norm(1, place), 1e-12)
        growth = self._growth[probes] = [between(found, i) if found else 1.0 for i in range(total)]
        return growth

    def damage(self, probes: int) -> list[list[float]]:
        """For kept values one and two steps old, what a reuse at each step adds to the squared error of the final latent.

        Errors of separate reuses are taken for independent, those of two in a row for parallel, as neighbouring noise is.
        """
        growth = self.growth(probes)
        one, two = ([self.norm(age, i) * growth[i] if i >= age else math.inf for i in range(self.steps)] for age in (1, 2))
        second = [two[i] ** 2 + 2 * one[i - 1] * two[i] if i >= 2 else math.inf for i in range(self.steps)]
        return [[e**2 for e in one], second]

    def carried(self, marks: str, mode: str, fit: str) -> Carried:
        """The numbers that carry noise to the reuse steps of a schedule; modes and fits as in ``calibrate_trajectory``."""
        if mode == "aware":
            return self._aware(marks, fit)
        return _literal(marks, self.slopes if fit == "slope" else self.cosines, self.cosines, mode == "rescaled")

    def _aware(self, marks: str, fit: str) -> Carried:
        """Another uncached run an input: regress the noise at each reuse on the noise measured at the full step before it, both
        with the kept values that the schedule will really have."""
        full = [i for i, m in enumerate(marks) if m == "#"]
        source = {i: max(f for f in full if f < i) for i, m in enumerate(marks) if m == "."}
        older = {f: max((g for g in full if g < f), default=-1) for f in set(source.values())}
        # At step s the newest kept value is one step old: an estimate from step k ignores s - 1 - k of them.
        lags = {i: (i - 1 - f,) for i, f in source.items()} | {f: (f - 1 - g,) for f, g in older.items() if g >= 0}
        held: dict[Any, torch.Tensor] = {}
        sums: dict[int, tuple[float, float, float]] = {}

        def look(step: Step, truth: torch.Tensor, rehearsed: tuple[torch.Tensor, ...]) -> None:
            if not rehearsed:
                return
            q = self._noise(rehearsed[0], truth)
            if step.index in source:
                p = held.get(step.branch)
                if p is not None:
                    old = sums.get(step.index, (0.0, 0.0, 0.0))
                    new = float((q * p).sum()), float(p.square().sum()), float(q.square().sum())
                    sums[step.index] = (old[0] + new[0], old[1] + new[1], old[2] + new[2])
            else:
                held[step.branch] = q

        recorder = Recorder(look, lambda step: lags.get(step.index, ()))
        with watched(self.pipe, Policy(Every(1), self.where, self.how, fix=recorder), inside=self.inside):
            for _, run in each_run(self.pipe, self.inputs, self.call, self.progress, "noise carried "):
                held.clear()
                run()
        carried: list[float | None] = []
        cosines: list[float] = []
        for i, mark in enumerate(marks):
            dot, low, top = sums.get(i, (0.0, 0.0, 0.0))
            cosine = dot / (low * top) ** 0.5 if low * top > 0 else 0.0
            cosines.append(cosine)
            slope = dot / low if low > 0 else 0.0
            carried.append(None if mark == "#" else (slope if fit == "slope" else cosine))
        return tuple(carried), cosines


def _flows(scheduler: Any) -> bool:
    """Whether sigmas are shares of noise, from 1 down to 0 as in flow matching, and not noise for each unit of signal."""
    sigmas: Any = getattr(scheduler, "sigmas", None)
    top = math.inf if sigmas is None or not len(sigmas) else float(max(sigmas))
    return top <= 1 + 1e-6 and (top > 0.99 or not hasattr(scheduler, "alphas_cumprod"))


def _literal(marks: str, slopes: list[float], cosines: list[float], rescaled: bool) -> Carried:
    """Eq. 9: the product of neighbouring steps' numbers since the last full step."""
    carried: list[float | None] = []
    previous, last = -1, -1
    for i, mark in enumerate(marks):
        if mark == "#":
            previous, last = last, i
            carried.append(None)
            continue
        product = 1.0
        for j in range(last + 1, i + 1):
            product *= slopes[j]
        if rescaled and previous >= 0:
            product *= (i - last) / (last - previous)
        carried.append(product)
    return tuple(carried), [c if m == "." else 0.0 for c, m in zip(cosines, marks, strict=True)]
