"""Which steps to compute: ``omnicache-optimal``'s shortest path against other schedules, at equal compute.

    python -m benchmarks.schedules emoji emoji-text [--samples 32]

Each schedule computes the same number of steps, and each is drawn in three ways: with numbers fitted to it (as
``omnicache-optimal`` does), with increments of the stack held, and with first-order Taylor forecasts of them. PSNR to the uncached
samples of inputs that nothing was measured on, with 95 % intervals. Writes ``schedules.json`` and, as tables, ``schedules.md``;
what is there already is not measured again.

The schedules:

- **evenly** apart;
- **curvature**: the straightest parts of the latents' path are reused, by dynamic programming (as ``omnicache-trajectory`` with
  ``order="curvature"``, but with as long runs of reuses as the budget wants);
- **accumulated**: computed whenever the model's output has changed by so much in all since the last computed step, with the
  threshold that gives the budget (TeaCache's and EasyCache's idea, on the true changes of the calibration);
- **greedy**: from the first step alone, the computed step is added that shortens the path most;
- **shortest**: the shortest path.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from benchmarks.compact import write

from omnicache import zoo
from omnicache.calibrate import geometry, schedule
from omnicache.calibrate.optimal import Course
from omnicache.calibrate.steps.shortest import jumps, weighed
from omnicache.granularity import Stack
from omnicache.measure.comparison import environment, rounded
from omnicache.measure.quality import Quality
from omnicache.measure.task import Task
from omnicache.methods.omnicache_optimal import omnicache_optimal
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.predictors import Hold, Residual, Taylor
from omnicache.triggers import Table

STEPS = {"emoji": 50, "emoji-text": 28, "emoji-motion": 30, "emoji-animate": 25, "emoji-unet": 50}
SHARES = (0.12, 0.24, 0.5)
CALIBRATION = 4


def strip(at: set[int], steps: int) -> str:
    return "".join("#" if i in at else "." for i in range(steps))


def evenly(course: Course, computed: int) -> list[str]:
    n = course.uncached.steps
    return [strip({i * n // computed for i in range(computed)}, n)]


def curvature(course: Course, computed: int) -> list[str]:
    n, paths = course.uncached.steps, course.uncached.latents.transpose(0, 1)
    bend = torch.stack([geometry.menger(p) for p in paths]).median(0).values.tolist()
    cost = [bend[0], *bend][:n]
    return [schedule.cheapest(cost, n - computed, warmup=1, tail=0, longest=-(-2 * n // computed))]


def accumulated(course: Course, computed: int) -> list[str]:
    outputs = course.uncached.outputs
    n = len(outputs)
    pairs = itertools.pairwise(outputs)
    change = [0.0, *(float(((b - a).norm(dim=-1) / a.norm(dim=-1)).mean()) for a, b in pairs)]

    def at(limit: float) -> set[int]:
        found, total = {0}, 0.0
        for i in range(1, n):
            total += change[i]
            if total >= limit:
                found.add(i)
                total = 0.0
        return found

    low, high = 0.0, sum(change) + 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if len(at(middle)) > computed else (low, middle)
    found = at(high)
    for i in sorted(range(n), key=lambda i: -change[i]):  # where no threshold gives just as many: the largest changes, too
        if len(found) >= computed:
            break
        found.add(i)
    return [strip(found, n)]


def greedy(course: Course, computed: int) -> list[str]:
    n = course.uncached.steps
    cost = weighed(jumps(course.uncached), course.growth(2), 0.5)
    at = [0]
    while len(at) < computed:
        at = min((sorted([*at, i]) for i in range(1, n) if i not in at), key=lambda path: length(cost, path))
    return [strip(set(at), n)]


def length(cost: torch.Tensor, path: list[int]) -> float:
    ends = [*path[1:], cost.shape[0]]
    return sum(float(cost[path[max(j - 1, 0)], i, end]) for j, (i, end) in enumerate(zip(path, ends, strict=True)))


def shortest(course: Course, computed: int) -> list[str]:
    return course.schedules(computed, 2)


SCHEDULES: dict[str, Callable[[Course, int], list[str]]] = {
    "evenly": evenly,
    "curvature": curvature,
    "accumulated": accumulated,
    "greedy": greedy,
    "shortest": shortest,
}


def forecast(marks: str, how: Any) -> Plan:
    return Plan("schedule", (Policy(Table(marks), Stack(), Residual(how)),))


def study(name: str, a: argparse.Namespace) -> None:
    path = a.out / "schedules.json"
    known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    mine = known.setdefault(name, {"rows": {}})
    samples = a.samples if zoo.frames(name) == 1 else max(a.samples // 4, 4)
    task = Task(name, zoo.load(name), samples, STEPS[name])
    mine |= {"steps": task.steps, "guidance": task.guidance, "unit": task.unit, **environment(torch.device("cpu"))}
    quality, course = Quality(task), None
    for share in SHARES:
        computed = round(share * task.steps)
        for label, make in SCHEDULES.items():
            key = f"{computed}: {label}"
            if mine["rows"].get(key, {}).get("samples", 0) >= samples:
                continue
            if course is None:
                course = Course(task.pipe, [one.call for one in task.others(CALIBRATION)], task.settings, progress=False)
            tried = [course.fitted(marks) for marks in make(course, computed)]
            best = min(tried, key=course.error)
            plans = {
                "fitted": omnicache_optimal(schedule=best.marks, weights=best.weights),
                "held": forecast(best.marks, Hold()),
                "taylor": forecast(best.marks, Taylor(1)),
            }
            found = {how: quality.of(plan)[0] for how, plan in plans.items()}
            row = {how: {"psnr": figures["psnr"], "psnr_each": figures["psnr_each"]} for how, figures in found.items()}
            mine["rows"][key] = {"computed": computed, "schedule": best.marks, "samples": samples, "label": label, **row}
            print(name, key, best.marks, {how: round(f["psnr"]["mean"], 1) for how, f in row.items()}, flush=True)
            a.out.mkdir(parents=True, exist_ok=True)
            write(path, rounded(known, 4))
            path.with_suffix(".md").write_text(tables(json.loads(path.read_text())))


def tables(known: dict[str, Any]) -> str:
    lines = ["# Schedules at equal compute", "", "PSNR in dB to the uncached samples of the same seeds, with 95 % intervals.", ""]
    for name, found in known.items():
        rows = list(found["rows"].values())
        told = f"{found['steps']} steps, guidance {found['guidance'] or 'none'}, {rows[0]['samples']} {found['unit']}s"
        lines += [f"## {name}", "", f"{told}, {found['device']}, torch {found['torch']}.", ""]
        lines += ["| computed | schedule | | fitted | held | Taylor |", "|---|---|---|---|---|---|"]
        for row in rows:
            cells = [
                f"{row[how]['psnr']['mean']:.1f} [{row[how]['psnr']['low']:.1f}, {row[how]['psnr']['high']:.1f}]" for how in HOWS
            ]
            lines.append("| " + " | ".join([str(row["computed"]), row["label"], f"`{row['schedule']}`", *cells]) + " |")
        lines.append("")
    return "\n".join(lines)


HOWS = ("fitted", "held", "taylor")


def main() -> None:
    ask = argparse.ArgumentParser()
    ask.add_argument("models", nargs="+", choices=list(STEPS))
    ask.add_argument("--samples", type=int, default=32, help="inputs to draw; a quarter where they are clips")
    ask.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    a = ask.parse_args()
    for name in a.models:
        study(name, a)


if __name__ == "__main__":
    main()
