"""Whether plans do what was asked for: ``omnicache.tune`` for several goals, and each plan on inputs that it has never seen.

    python -m benchmarks.goals emoji [--steps 20] [--psnr 28 32 40] [--speedup 1.5 2 3] [--samples 256] [--pairs 15]

Each goal is tuned on sixteen inputs (of clips eight). Its plan is then drawn for all samples, which gives the mean PSNR with its
95 % interval, and timed in interleaved pairs of one call each, on other inputs. Writes ``goals-MODEL.json`` and, as a table,
``goals-MODEL.md``; a goal that is there already is not asked for again. Nothing else may run beside it.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from benchmarks.compact import write

import omnicache
from omnicache import zoo
from omnicache.errors import OmniCacheError
from omnicache.measure.comparison import environment, rounded
from omnicache.measure.quality import Quality
from omnicache.measure.speed import speed
from omnicache.measure.task import Task

NEAR = {"psnr": 0.5, "speedup": 0.05}
"""By so much, in dB and as a share, what is reached may differ from what was asked for."""


def asked(task: Task, goal: str, wanted: float, a: argparse.Namespace) -> dict[str, Any]:
    """A goal's plan, and what it does."""
    inputs = [one.call for one in task.others(16 if task.frames == 1 else 8)]
    began = time.perf_counter()
    try:
        plan = omnicache.tune(task.pipe, inputs, **{goal: wanted}, budget=a.budget, folder=a.work / "tune", **task.settings)
    except OmniCacheError as no:
        return {"refused": str(no)}
    found: dict[str, Any] = {"plan": plan.describe(), "tuned": plan.measured["tuned"], "seconds": time.perf_counter() - began}
    plan.save(a.work / f"goals-{task.name}-{task.steps}-{goal}-{wanted:g}.plan.json")
    quality, _ = Quality(task, a.batch, a.work).of(plan)
    found["quality"] = {key: quality[key] for key in ("samples", "psnr", "ssim", "recognised", "cache_bytes")}
    turn = iter(range(10**9))

    def call() -> Any:
        """Each pair (two calls) draws another of the samples."""
        at = next(turn) // 2 % len(task.inputs)
        return task.draw(at, at + 1)

    found["speed"] = speed(task.pipe, call, plan, a.pairs)
    return found


def verdict(goal: str, wanted: float, found: dict[str, Any]) -> str:
    """Whether a goal was reached, by its interval, and how far off it is."""
    if "refused" in found:
        return "refused"
    if goal == "psnr":
        reached = found["quality"]["psnr"]
        off, sure = reached["mean"] - wanted, reached["high"] - wanted
        return f"{off:+.1f} dB: {_word(off, sure, NEAR[goal])}"
    reached = found["speed"]["speedup"]
    off, sure = reached["median"] / wanted - 1, reached["high"] / wanted - 1
    return f"{off:+.0%}: {_word(off, sure, NEAR[goal])}"


def _word(off: float, sure: float, near: float) -> str:
    if off > near:
        return "more"
    return "reached" if off >= 0 else "within" if sure >= -near else "missed"


def markdown(record: dict[str, Any]) -> str:
    """The table of one model."""
    load = " ".join(f"{one:.1f}" for one in record["load_average"])
    lines = [
        f"# Goals on {record['model']}, {record['steps']} steps",
        "",
        f"{record['samples']} {record['unit']}s that no plan was made on, guidance {record['guidance'] or 'none'}, "
        f"{record['device']}, torch {record['torch']}, {record['when']}, load average {load}. PSNR is the mean, with its 95 % "
        "interval; speed is the denoiser's, the median of interleaved pairs. A goal counts as within where it is missed by no more "
        "than 0.5 dB or 5 % up to its interval, and as more where it is exceeded by more than that: plans compute whole steps.",
        "",
        "| asked for | plan | PSNR (dB) | speedup | off | tuning took |",
        "|---|---|---|---|---|---|",
    ]
    for key, found in record["goals"].items():
        goal, wanted = key.split()
        if "refused" in found:
            lines.append(f"| {goal} {wanted} | refused: {found['refused']} | | | | |")
            continue
        psnr, fast = found["quality"]["psnr"], found["speed"]["speedup"]
        lines.append(
            f"| {goal} {wanted} | {found['tuned']['chosen']['label']} | {psnr['mean']:.1f} [{psnr['low']:.1f}, {psnr['high']:.1f}] "
            f"| {fast['median']:.2f} [{fast['low']:.2f}, {fast['high']:.2f}] | {verdict(goal, float(wanted), found)} "
            f"| {found['seconds']:.0f} s |"
        )
    return "\n".join([*lines, ""])


def main() -> None:
    ask = argparse.ArgumentParser()
    ask.add_argument("model")
    ask.add_argument("--steps", type=int, default=None)
    ask.add_argument("--psnr", type=float, nargs="*", default=[28, 32, 40])
    ask.add_argument("--speedup", type=float, nargs="*", default=[1.5, 2, 3])
    ask.add_argument("--samples", type=int, default=256)
    ask.add_argument("--batch", type=int, default=8)
    ask.add_argument("--pairs", type=int, default=15)
    ask.add_argument("--budget", default="10 min")
    ask.add_argument("--work", type=Path, default=Path(".profiles"), help="uncached samples, plans and what tuning measures")
    ask.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    a = ask.parse_args()
    task = Task(a.model, zoo.load(a.model), a.samples, a.steps)
    path = a.out / f"goals-{a.model}-{task.steps}.json"
    record: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"goals": {}}
    a.out.mkdir(parents=True, exist_ok=True)
    for goal, wanted in [*(("psnr", w) for w in a.psnr), *(("speedup", w) for w in a.speedup)]:
        key = f"{goal} {wanted:g}"
        if key in record["goals"]:
            continue
        record["goals"][key] = asked(task, goal, wanted, a)
        about = {"model": a.model, "steps": task.steps, "guidance": task.guidance, "unit": task.unit, "samples": a.samples}
        record = rounded(
            {**about, "when": time.strftime("%Y-%m-%d"), **environment(torch.device("cpu")), "goals": record["goals"]}, 5
        )
        write(path, record)
        path.with_suffix(".md").write_text(markdown(record))
        print(key, verdict(goal, wanted, record["goals"][key]), flush=True)


if __name__ == "__main__":
    main()
