"""Calibration of the Layered Cache: profile, propose, refine, measure what came of it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch

from omnicache.calibrate.layers.batches import batches
from omnicache.calibrate.layers.budget import Budget, Cell, Rows
from omnicache.calibrate.layers.graph import graph
from omnicache.calibrate.layers.greedy import greedy
from omnicache.calibrate.layers.interacting import interacting, whole_steps
from omnicache.calibrate.layers.knapsack import knapsack
from omnicache.calibrate.layers.profile import Profile, profile
from omnicache.calibrate.layers.refine import Words, cost, refine
from omnicache.calibrate.layers.replay import Replay
from omnicache.calibrate.progress import progress as bar
from omnicache.models import discover
from omnicache.models.map import ModelMap
from omnicache.now import now
from omnicache.plan import Plan
from omnicache.registry import Choice, Range
from omnicache.runtime.hook import Hook
from omnicache.runtime.session import Session

SOLVERS: dict[str, Callable[[Profile, Budget], tuple[Cell, ...]]] = {
    "greedy": lambda found, budget: greedy(found.loss, budget),
    "knapsack": lambda found, budget: knapsack(found.loss, budget),
    "interacting": lambda found, budget: interacting(found.joint, budget),
    "whole-steps": lambda found, budget: whole_steps(found.joint, budget),
}


def calibrate_layered(
    pipe: Any,
    inputs: Sequence[Any],
    call: dict[str, Any],
    progress: bool = True,
    *,
    speedup: Annotated[float, Range(1, 1000)] = 2.0,
    interval: Annotated[int, Range(2, 1000)] = 5,
    solver: Annotated[str, Choice(("measured", *SOLVERS))] = "measured",
    horizon: Annotated[int | None, Range(1)] = 2,
    batch: Annotated[int, Range(1)] = 4,
    folder: str | Path | None = None,
    pairs: Annotated[int, Range(1)] = 3,
    measured: Profile | None = None,
) -> Plan:
    """Measure what reusing each layer at each step costs and saves, and plan which to reuse (OmniCache-MD, the Layered Cache).

    Args:
        speedup: of the denoiser, wanted; what the plan reaches is measured in the end.
        interval: at every such step all layers are computed, so that no value gets older than ``interval - 1`` steps. The speedup
            cannot be larger than it.
        solver: how cells are chosen: "greedy" is the paper's, by loss for each second saved; "knapsack" finds the least sum of
            losses; "interacting" the least joint error, from the same measurements; "whole-steps" the same for plans that reuse all
            layers at once. "measured" makes the plans of all of them, and takes the one that leaves the least error on the inputs.
        horizon: follow each error for so many steps, and grow it from there as a few cells show; None follows it to the end, which
            takes about ``steps / 6`` times as long. See ``profile``.
        batch: inputs that are drawn in one call.
        folder: where partial results are kept, so that an interrupted calibration goes on where it was.
        pairs: timed pairs of runs with and without the plan, in the end.
        measured: the profile of an earlier calibration on the same pipeline, inputs and call, to plan anew without measuring.
    """
    from omnicache.methods.omnicache_layered import omnicache_layered

    options: dict[str, Any] = {"interval": interval, "horizon": horizon, "batch": batch, "folder": folder}
    found = measured or profile(pipe, inputs, call, progress, **options)
    with Replay(pipe) as replay:
        model = discover(replay.model)
    budget = Budget.of(found.lat, speedup, interval, found.rest)
    calls = batches(pipe, inputs, call, batch)
    names = list(SOLVERS) if solver == "measured" else [solver]
    made = {name: refined(model, found, budget, SOLVERS[name](found, budget)) for name in names}
    tried: dict[str, float] = {}
    if len(different := list(dict.fromkeys(made.values()))) > 1:
        errors = {}
        with bar("plans compared", len(different), progress) as done:
            for rows in different:
                errors[rows] = remeasure(pipe, calls, omnicache_layered(schedule=rows), 1)["error"]
                done()
        tried = {name: errors[rows] for name, rows in made.items()}
        solver = min(tried, key=tried.__getitem__)
    elif solver == "measured":
        solver = names[0]
    rows = made[solver]
    plan = omnicache_layered(schedule=rows)
    figures = remeasure(pipe, calls, plan, pairs)
    loss, lat = found.loss, found.lat
    weight = [[a / b if b else 0.0 for a, b in zip(x, y, strict=True)] for x, y in zip(loss, lat, strict=True)]
    return plan.with_measured(
        rows=rows,
        loss=loss,
        lat=found.timing.computed,
        saved=found.timing.saved,
        whole=found.timing.whole,
        weight=weight,
        wanted_speedup=speedup,
        foreseen_speedup=1 / (1 - budget.saved([(n, t) for n, row in enumerate(rows) for t, m in enumerate(row) if m == "."])),
        foreseen_error=found.joint.size(rows),
        solver=solver,
        tried=tried,
        interval=interval,
        horizon=found.horizon,
        inputs=len(inputs),
        **figures,
    )


def refined(model: ModelMap, found: Profile, budget: Budget, cells: Sequence[Cell]) -> Rows:
    """The plan by layer for these cells: what nobody asks for is not computed, and if that saves more than a layer too much, the
    cells of the highest loss for each second saved are computed after all."""
    nodes, of_layer = graph(model)
    loss, share = found.loss, budget.share
    dearest = sorted(cells, key=lambda c: (loss[c[0]][c[1]] / share[c[0]][c[1]], c), reverse=True)
    lat = [[0.0] * budget.steps for _ in nodes]
    for n, node in enumerate(of_layer):
        lat[node] = list(share[n])
    whole = sum(map(sum, share))

    def words(given_back: int) -> Words:
        chosen = budget.rows(dearest[given_back:])
        plan = ["C" * budget.steps] * len(nodes)
        for n, node in enumerate(of_layer):
            plan[node] = chosen[n].replace("#", "C").replace(".", "R")
        return refine(nodes, plan, budget.interval)

    def saved(given_back: int) -> float:
        return whole - cost(words(given_back), lat)

    low, high = 0, 0
    largest = max(max(row) for row in share)
    if saved(0) > budget.target + largest:
        low, high = 0, len(dearest)
        while low + 1 < high:
            middle = (low + high) // 2
            low, high = (middle, high) if saved(middle) >= budget.target else (low, middle)
    best = words(low)
    return tuple("".join("#" if mark in "Cc" else "." for mark in best[node]) for node in of_layer)


def remeasure(pipe: Any, calls: Sequence[Mapping[str, Any]], plan: Plan, pairs: int = 3) -> dict[str, Any]:
    """What a plan really gains and costs: each batch is drawn with and without it, in turns.

    Returns:
        ``speedup`` of the denoiser (the median of at least ``pairs`` pairs) and ``error`` of the final latent (relative L2, mean
        over the samples).
    """
    ratios, errors = [], []
    with Replay(pipe) as replay:
        found = discover(replay.model)
        tapes = [replay.record(call) for call in calls]

        def timed() -> tuple[float, torch.Tensor]:
            spent = [0.0]

            def watch(inner: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
                began = now()
                out = inner(*args, **kwargs)
                spent[0] += now() - began
                return out

            hook = Hook(replay.model, watch)
            try:
                latents = replay.restart(tape)
            finally:
                hook.remove()
            return spent[0], latents[-1]

        for i in range(max(pairs, len(tapes))):
            tape = tapes[i % len(tapes)]
            before = timed()[0] if i % 2 else None
            session = Session(found, plan, pipe)
            try:
                seconds, end = timed()
            finally:
                session.detach()
            ratios.append((timed()[0] if before is None else before) / seconds)
            if i < len(tapes):
                wrong, truth = (end - tape.latents[-1]).flatten(1), tape.latents[-1].flatten(1)
                errors.append(wrong.norm(dim=1) / truth.norm(dim=1).clamp_min(1e-30))
    return {"speedup": statistics.median(ratios), "error": float(torch.cat(errors).mean())}
