"""Calibration of OmniCache-Trajectory: the path's curvature, a schedule, and how noise carries over from step to step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import torch

from omnicache.calibrate import geometry, schedule
from omnicache.calibrate.record import Recorder, each_run, one_denoiser, watched
from omnicache.errors import OmniCacheError
from omnicache.granularity import MLP, Attention, Stack
from omnicache.plan import Plan
from omnicache.policy import Policy, Predictor, Where
from omnicache.predictors import Hold, Residual
from omnicache.registry import Choice, Range
from omnicache.runtime.step import Step
from omnicache.triggers import Every

CURVATURES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "menger": geometry.menger,
    "turning": geometry.turning,
    "second": geometry.second_difference,
}


def calibrate_trajectory(
    pipe: Any,
    inputs: Sequence[Any],
    call: dict[str, Any],
    progress: bool = True,
    *,
    reuse: Annotated[float, Range(0, 10_000)] = 0.5,
    order: Annotated[str, Choice(("curvature", "greedy", "error", "alternate"))] = "curvature",
    curvature: Annotated[str, Choice(("menger", "turning", "second"))] = "menger",
    gamma: Annotated[str, Choice(("aware", "rescaled", "literal"))] = "aware",
    fit: Annotated[str, Choice(("slope", "cosine"))] = "slope",
    correct: bool = True,
    cutoff: Annotated[float | None, Range(0.01, 10)] = 0.25,
    switch: Annotated[str, Choice(("half", "snr"))] = "half",
    warmup: Annotated[int, Range(1, 1000)] = 2,
    tail: Annotated[int, Range(1, 1000)] = 1,
    granularity: Annotated[str, Choice(("stack", "module"))] = "stack",
) -> Plan:
    """Measure uncached runs and plan which steps to reuse (arXiv 2508.16212, sections 3.2 and 3.3).

    Args:
        reuse: share of the steps to reuse, or their number if above 1.
        order: how steps are chosen. "curvature": the straightest parts of the path, by dynamic programming; "greedy": the
            paper's literal rule; "error": least displacement of the path by the reuse itself; "alternate": evenly.
        curvature: which discrete curvature.
        gamma: "aware" regresses the noise that will occur at a reuse on the one that will be measured before it; "literal"
            multiplies neighbouring steps' numbers as in eq. 9; "rescaled" scales that by the ages of the kept values.
        fit: least-squares slope, or the cosine.
        correct: False plans reuse only.
        cutoff, switch: of the band filter on the correction, see ``NoiseCorrection``; "snr" switches where signal meets noise.
        warmup, tail: computed steps at the ends.
        granularity: "stack" or "module", see the method.
    """
    from omnicache.methods.omnicache_trajectory import omnicache_trajectory

    where: Where = Stack() if granularity == "stack" else Attention() | MLP()
    how: Predictor = Residual(Hold(3)) if granularity == "stack" else Hold(3)
    paths, noise = _measure(pipe, inputs, call, progress, where, how)
    total = noise.steps
    if total < warmup + tail + 1:
        raise OmniCacheError(f"{total} steps are too few: {warmup} at the start and {tail} at the end are computed anyway.")
    count = round(reuse * total) if reuse <= 1 else round(reuse)
    bend = torch.stack([CURVATURES[curvature](p) for p in paths]).median(0).values
    cost = [float("inf"), *bend.tolist()][:total]
    cost[0] = max(c for c in cost[1:])  # step 0 is computed anyway
    shift = noise.displacement
    if order == "alternate":
        marks = schedule.alternate(total, count, warmup, tail)
        schedule.cheapest(cost, count, warmup, tail)  # says so if the rule does not allow as many
    elif order == "greedy":
        schedule.cheapest(cost, count, warmup, tail)
        marks = schedule.greedy(cost, count, warmup, tail)
    elif order == "error":
        marks = schedule.cheapest(shift[0], count, warmup, tail, ages=shift)
    else:
        marks = schedule.cheapest(cost, count, warmup, tail)

    if gamma == "aware":
        carried, cosines = _aware(pipe, inputs, call, progress, where, how, marks, fit)
    else:
        carried, cosines = _literal(marks, noise.slopes if fit == "slope" else noise.cosines, noise.cosines, gamma == "rescaled")
    at = noise.crossing if switch == "snr" else -(-total // 2)
    plan = omnicache_trajectory(schedule=marks, gamma=carried, correct=correct, cutoff=cutoff, switch=at, granularity=granularity)
    similar = [[geometry.similarity(a, b) for b in paths] for a in paths]
    return plan.with_measured(
        points=[p.tolist() for p in paths],
        similarity=similar,
        curvature=cost,
        displacement=[list(s) for s in shift],
        gamma=[g or 0.0 for g in carried],
        cosine=cosines,
        schedule=marks,
        reuses=marks.count("."),
        order=order,
        mode=gamma,
        inputs=len(inputs),
    )


class _Noise:
    """What the first pass learns of the noise that a one, two or three steps old value would cause at every step."""

    def __init__(self) -> None:
        self.steps = 0
        self.norms: dict[tuple[int, int], list[float]] = {}
        self.products: dict[int, tuple[float, float, float]] = {}
        self.scale: dict[int, list[float]] = {}
        self.signal: dict[int, float] = {}

    def _norm(self, age: int, i: int) -> float:
        found = self.norms.get((age, i), [])
        return (sum(found) / len(found)) ** 0.5 if found else float("inf")

    @property
    def displacement(self) -> list[list[float]]:
        """For ages 1 to 3, the distance that a reuse at each step moves the latent: ``||q_i||`` times the sampler's gain."""
        gain = [(sum(v) / len(v)) ** 0.5 if (v := self.scale.get(i)) else 1.0 for i in range(self.steps)]
        return [[min(self._norm(a, i) * gain[i], 1e30) for i in range(self.steps)] for a in (1, 2, 3)]

    @property
    def slopes(self) -> list[float]:
        """``<q_i, q_{i-1}> / ||q_{i-1}||^2`` of one step old values."""
        return [p[0] / p[1] if (p := self.products.get(i)) and p[1] > 0 else 0.0 for i in range(self.steps)]

    @property
    def cosines(self) -> list[float]:
        return [p[0] / (p[1] * p[2]) ** 0.5 if (p := self.products.get(i)) and p[1] * p[2] > 0 else 0.0 for i in range(self.steps)]

    @property
    def crossing(self) -> int:
        """The first step at which the latent holds more signal than noise."""
        return next((i for i in range(self.steps) if self.signal.get(i, 0.0) >= 1.0), self.steps)


def _measure(
    pipe: Any, inputs: Sequence[Any], call: dict[str, Any], progress: bool, where: Where, how: Predictor
) -> tuple[list[torch.Tensor], _Noise]:
    """One uncached run an input: its path, and the noise of old values along it."""
    noise, latents = _Noise(), list[torch.Tensor]()
    before: dict[Any, torch.Tensor] = {}
    one_denoiser(pipe)

    def look(step: Step, truth: torch.Tensor, rehearsed: tuple[torch.Tensor, ...]) -> None:
        noise.steps = max(noise.steps, step.index + 1)
        if step.sigma is not None:
            noise.signal[step.index] = 1 / max(step.sigma, 1e-12) ** 2
        for age, estimate in enumerate(rehearsed, start=1):
            q = (estimate - truth).float()
            noise.norms.setdefault((age, step.index), []).append(float(q.square().sum()))
            if age == 1:
                if (last := before.get(step.branch)) is not None:
                    new = float((q * last).sum()), float(last.square().sum()), float(q.square().sum())
                    old = noise.products.get(step.index, (0.0, 0.0, 0.0))
                    noise.products[step.index] = (old[0] + new[0], old[1] + new[1], old[2] + new[2])
                before[step.branch] = q

    recorder = Recorder(look, lambda step: tuple(range(min(step.index, 3))))
    paths = []
    with watched(pipe, Policy(Every(1), where, how, fix=recorder), latents):
        for _, run in each_run(pipe, inputs, call, progress, "the path      "):
            latents.clear()
            before.clear()
            run()
            paths.append(geometry.project(geometry.gram(latents)))
    gains = _gains(pipe, noise.steps)
    for i, g in enumerate(gains):
        noise.scale[i] = [g * g]
    return paths, noise


def _gains(pipe: Any, steps: int) -> list[float]:
    """How far the sampler moves the latent for a unit change of the model's output, at each step, by finite difference.

    Read from a fresh copy of the scheduler, so multistep solvers are probed without history; 1 where it cannot be probed.
    """
    copy = type(pipe.scheduler).from_config(pipe.scheduler.config)
    copy.set_timesteps(steps)
    gains = []
    for t in copy.timesteps[:steps]:
        try:
            x, e = torch.zeros(1, 4, 8, 8), torch.zeros(1, 4, 8, 8)
            fresh = type(copy).from_config(copy.config)
            fresh.set_timesteps(steps)
            a = fresh.step(e, t, x).prev_sample
            fresh = type(copy).from_config(copy.config)
            fresh.set_timesteps(steps)
            b = fresh.step(e + 1, t, x).prev_sample
            gains.append(float((b - a).square().mean().sqrt()))
        except Exception:
            gains.append(1.0)
    return gains + [1.0] * (steps - len(gains))


def _aware(
    pipe: Any,
    inputs: Sequence[Any],
    call: dict[str, Any],
    progress: bool,
    where: Where,
    how: Predictor,
    marks: str,
    fit: str,
) -> tuple[tuple[float | None, ...], list[float]]:
    """A second uncached run an input: regress the noise at each reuse on the noise measured at the full step before it, both
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
        q = (rehearsed[0] - truth).float()
        if step.index in source:
            p = held.get(step.branch)
            if p is not None:
                old = sums.get(step.index, (0.0, 0.0, 0.0))
                new = float((q * p).sum()), float(p.square().sum()), float(q.square().sum())
                sums[step.index] = (old[0] + new[0], old[1] + new[1], old[2] + new[2])
        else:
            held[step.branch] = q

    recorder = Recorder(look, lambda step: lags.get(step.index, ()))
    with watched(pipe, Policy(Every(1), where, how, fix=recorder)):
        for _, run in each_run(pipe, inputs, call, progress, "noise carried "):
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


def _literal(marks: str, slopes: list[float], cosines: list[float], rescaled: bool) -> tuple[tuple[float | None, ...], list[float]]:
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
