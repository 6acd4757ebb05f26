"""Calibration of ``omnicache-optimal``: which steps to compute, and how to get from one to the next."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch

from omnicache.calibrate.record import one_denoiser
from omnicache.calibrate.schedule import reuses_of
from omnicache.calibrate.steps.fit import Fitted, fit
from omnicache.calibrate.steps.growth import growth
from omnicache.calibrate.steps.shortest import alone, jumps, shortest, weighed
from omnicache.calibrate.steps.tape import record
from omnicache.errors import OmniCacheError
from omnicache.plan import Plan
from omnicache.registry import Range
from omnicache.sampler import described

POWERS = (0.5, 0.0, 1.0)


def calibrate_optimal(
    pipe: Any,
    inputs: Sequence[Any],
    call: dict[str, Any],
    progress: bool = True,
    *,
    reuse: Annotated[float, Range(0, 10_000)] = 0.8,
    history: Annotated[int, Range(1, 8)] = 2,
    probes: Annotated[int, Range(1, 1000)] = 2,
    inside: Plan | None = None,
    measured: Course | None = None,
) -> Plan:
    """Choose the steps to compute by dynamic programming, and fit the steps between on runs of the plan itself.

    An uncached run tells how well the latents before any step ``k`` follow from the latents and outputs of two computed steps
    ``h < i < k``: a small least-squares problem for each three, all on the same products of latents and outputs. Times what an
    error there grows to by the end, measured too, that is the length of the way from ``(h, i)`` to ``(i, k)``, and the best
    computed steps for a budget are a shortest path. How errors add up is not known exactly, so three schedules are tried: with
    the growth, its square root and without. All inputs are drawn with each at the same time, step by step, and each reused step
    is fitted to lead back to where the uncached run went; what is worst in the end is dropped.

    It takes an uncached run of each input, at most 8 more for each probe, and three of the plan for each input. The inputs of a
    calibration are held in memory together, but are computed one after the other.

    Args:
        reuse: share of the steps to reuse, or their number if above 1.
        history: computed steps whose outputs and latents are kept. 1 is far worse than 2, and 3 hardly better, where we tried.
        probes: on how many of the inputs the growth of errors is measured.
        inside: a plan for what is computed, such as that of "omnicache-md" or "cfg-cache": the steps are fitted with it, and what
            is returned is both together.
        measured: what an earlier calibration on the same pipeline, inputs and call has measured, to plan anew without.
    """
    from omnicache.methods.omnicache_optimal import omnicache_optimal

    course = measured or Course(pipe, inputs, call, progress)
    n = course.uncached.steps
    reused = reuses_of(reuse, n)
    if not 0 <= reused < n:
        most = math.floor(100 * (n - 1) / n) / 100
        raise OmniCacheError(
            f"{reused} of {n} steps cannot be reused: the first is computed. Ask for reuse={most:.2f} (a share) or less."
        )
    tried = [course.fitted(marks, history, inside) for marks in course.schedules(n - reused, probes)]
    errors = [course.error(one) for one in tried]
    best = tried[errors.index(min(errors))]
    plan = omnicache_optimal(schedule=best.marks, weights=best.weights, sampler=described(pipe.scheduler)).with_measured(
        schedule=best.marks,
        reuses=best.marks.count("."),
        growth=course.growth(probes),
        left=course.left(best.marks, probes),
        error=min(errors),
        off=best.off.mean(1).sqrt().tolist(),
        tried={one.marks: error for one, error in zip(tried, errors, strict=True)},
        inputs=len(inputs),
    )
    return plan + inside if inside else plan


class Course:
    """What is measured once, whatever is then asked for.

    Attributes:
        uncached: a run of each input.
    """

    def __init__(self, pipe: Any, inputs: Sequence[Any], call: Mapping[str, Any], progress: bool = True):
        one_denoiser(pipe)
        self.pipe, self.inputs, self.call, self.progress = pipe, inputs, call, progress
        self.uncached = record(pipe, inputs, call, progress)
        self._growth: dict[int, list[float]] = {}

    @functools.cached_property
    def jumps(self) -> torch.Tensor:
        return jumps(self.uncached)

    def growth(self, probes: int) -> list[float]:
        """What an error before each step is by the end; see ``steps/growth.py``."""
        if probes not in self._growth:
            self._growth[probes] = growth(self.uncached.steps, lambda marks: self._fitted(marks, 2, None, probes, "growth        "))
        return self._growth[probes]

    def schedules(self, computed: int, probes: int) -> list[str]:
        """Shortest paths, without those that are the same."""
        if computed == self.uncached.steps:
            return ["#" * computed]
        lengths = (weighed(self.jumps, self.growth(probes), power) for power in POWERS)
        return list(dict.fromkeys(shortest(length, computed) for length in lengths))

    def left(self, marks: str, probes: int) -> list[float]:
        """The error that each reused step by itself is to leave in the final latents, as a share of their size: what the paths are
        made of. 0 for computed ones."""
        if "." not in marks:
            return [0.0] * len(marks)
        size = float(self.uncached.latents[-1].square().mean().sqrt()) or 1.0
        grown = zip(alone(self.jumps, marks), self.growth(probes)[1:], strict=True)
        return [square**0.5 * by / size for square, by in grown]

    def fitted(self, marks: str, history: int = 2, inside: Plan | None = None) -> Fitted:
        """A schedule's numbers."""
        return self._fitted(marks, history, inside, len(self.inputs), "fitting       ")

    def _fitted(self, marks: str, history: int, inside: Plan | None, count: int, label: str) -> Fitted:
        some = self.uncached.part(count)
        return fit(self.pipe, self.inputs[:count], self.call, some, marks, history, inside, self.progress, label)

    def error(self, fitted: Fitted) -> float:
        """Of the final latents as a share of their size: a geometric mean over the inputs, as a mean in dB is."""
        shares = fitted.off[-1] / self.uncached.latents[-1].square().mean(1).cpu()
        return float(shares.clamp_min(1e-30).log().mean().exp().sqrt()) if fitted.off[-1].any() else 0.0
