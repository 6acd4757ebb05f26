"""Calibration of OmniCache-Trajectory: the path's curvature, a schedule, and how noise carries over from step to step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import torch

from omnicache.calibrate import geometry, schedule
from omnicache.calibrate.uncached import Uncached
from omnicache.errors import OmniCacheError
from omnicache.plan import Plan
from omnicache.registry import Choice, Range

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
    order: Annotated[str, Choice(("error", "curvature", "greedy", "alternate"))] = "error",
    curvature: Annotated[str, Choice(("menger", "turning", "second"))] = "menger",
    gamma: Annotated[str, Choice(("aware", "rescaled", "literal"))] = "aware",
    fit: Annotated[str, Choice(("slope", "cosine"))] = "slope",
    correct: bool = True,
    cutoff: Annotated[float | None, Range(0.01, 10)] = None,
    switch: Annotated[str, Choice(("half", "snr"))] = "half",
    mask: Annotated[str, Choice(("gaussian", "ideal"))] = "gaussian",
    frames: bool = False,
    probes: Annotated[int, Range(1, 1000)] = 2,
    warmup: Annotated[int, Range(1, 1000)] = 2,
    tail: Annotated[int, Range(1, 1000)] = 1,
    granularity: Annotated[str, Choice(("stack", "module"))] = "stack",
    inside: Plan | None = None,
    measured: Uncached | None = None,
) -> Plan:
    """Measure uncached runs and plan which steps to reuse (arXiv 2508.16212, sections 3.2 and 3.3).

    Args:
        reuse: share of the steps to reuse, or their number if above 1.
        order: how steps are chosen. "error": the least error of the final latent, from the noise that a reuse adds at each step
            and what it grows to by the end, both measured; "curvature": the paper's rule, the straightest parts of the path,
            by dynamic programming; "greedy": the same, in its literal form; "alternate": evenly.
        curvature: which discrete curvature.
        gamma: "aware" regresses the noise that will occur at a reuse on the one that will be measured before it; "literal"
            multiplies neighbouring steps' numbers as in eq. 9; "rescaled" scales that by the ages of the kept values.
        fit: least-squares slope, or the cosine.
        correct: False plans reuse only.
        probes: "error" only: on how many of the inputs the growth of noise is measured (about ten runs each).
        cutoff, switch, mask, frames: of the band filter on the correction, see ``NoiseCorrection``; "snr" switches where signal
            meets noise.
        warmup, tail: computed steps at the ends.
        granularity: "stack" or "module", see the method.
        inside: a plan for what is computed, such as that of "omnicache-md": the noise is measured with it, and what is returned is
            both together. Not with "module", where both would keep the same outputs.
        measured: the runs of an earlier calibration on the same pipeline, inputs and call, to plan anew without measuring.
    """
    from omnicache.methods.omnicache_trajectory import omnicache_trajectory

    runs = measured or Uncached(pipe, inputs, call, progress, granularity, inside)
    total, paths = runs.steps, runs.paths
    if total < warmup + tail + 1:
        raise OmniCacheError(f"{total} steps are too few: {warmup} at the start and {tail} at the end are computed anyway.")
    count = schedule.reuses_of(reuse, total)
    bend = torch.stack([CURVATURES[curvature](p) for p in paths]).median(0).values.tolist()
    cost = [bend[0], *bend][:total]  # the first step has no curvature, and is computed anyway
    schedule.check(total, count, warmup, tail)
    if order == "error":
        marks = schedule.cheapest(cost, count, warmup, tail, ages=runs.damage(probes))
    elif order == "alternate":
        marks = schedule.alternate(total, count, warmup, tail)
    elif order == "greedy":
        marks = schedule.greedy(cost, count, warmup, tail)
    else:
        marks = schedule.cheapest(cost, count, warmup, tail)

    carried, cosines = runs.carried(marks, gamma, fit)
    at = runs.crossing if switch == "snr" else -(-total // 2)
    plan = omnicache_trajectory(
        schedule=marks,
        gamma=carried,
        correct=correct,
        cutoff=cutoff,
        switch=at,
        channels=runs.channels,
        mask=mask,
        frames=frames,
        granularity=granularity,
    )
    similar = [[geometry.similarity(a, b) for b in paths] for a in paths]
    plan = plan.with_measured(
        points=[p.tolist() for p in paths],
        similarity=similar,
        curvature=cost,
        noise=[runs.norm(1, i) if i else 0.0 for i in range(total)],
        growth=runs.growth(probes) if order == "error" else [],
        gamma=[g or 0.0 for g in carried],
        cosine=cosines,
        schedule=marks,
        reuses=marks.count("."),
        order=order,
        mode=gamma,
        inputs=len(inputs),
    )
    return plan + inside if inside else plan
