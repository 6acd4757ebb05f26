"""The multidimensional OmniCache on the small models: tables like the paper's, and its experiments.

    python -m benchmarks.multidimensional emoji-text emoji-motion emoji-animate emoji [--pairs 11]

Each row of the table of methods is drawn for 256 inputs (of clips 32, with eight frames each for KID), each row of the experiments
for every fourth of them, and compared with the uncached samples of the same seeds, then timed on one call
in interleaved pairs.
Writes ``multidimensional-MODEL.json`` and, as tables, ``multidimensional-MODEL.md``; what the JSON holds already is not measured
again, and one row more is written at a time.
``--only quality`` may share the machine with something else, ``--only speed`` may not; ``--only tables`` writes the tables anew.

Schedules of the Layered Cache are made on inputs that are not among the samples.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from benchmarks.compact import write
from benchmarks.tables import markdown

import omnicache
from omnicache import zoo
from omnicache.calibrate.layered import calibrate_layered
from omnicache.calibrate.layers.profile import profile
from omnicache.kept.origin import digest
from omnicache.measure.comparison import environment, rounded
from omnicache.measure.quality import Quality, mean95
from omnicache.measure.speed import speed
from omnicache.measure.task import Task
from omnicache.plan import Plan
from training.motion.data import against_law, track
from training.motion.figures import NEAR

METHODS = "methods"
"""The table whose rows are drawn for all inputs."""
THINNED = 4
"""The experiments compare rows sample by sample, and need fewer."""
STEPS = {"emoji": 20, "emoji-text": 28, "emoji-motion": 30, "emoji-animate": 25}
CALIBRATION, CALIBRATION_CLIPS = 8, 2
LAYERED = {"layered 1.5x": 1.5, "layered 2x": 2.0, "layered 2.5x": 2.5}


@dataclass(frozen=True)
class Row:
    """A plan in a table; ``make`` builds it when it is wanted, since some must be calibrated."""

    group: str
    label: str
    ratio: str
    make: Callable[[], Plan]


class Rows:
    """What is measured on a model."""

    def __init__(self, task: Task, folder: Path):
        self.task, self.folder = task, folder
        self.model = type(getattr(task.pipe, "unet", None) or task.pipe.transformer).__name__
        self.film = task.frames > 1
        self.mlp = self.model == "SD3Transformer2DModel"

    def md(self, **options: Any) -> Plan:
        """The caches with what the paper sets for this architecture, and only the ratios that are given."""
        none = {"token": 0.0, "frame": 0.0, "block": 0.0}
        return omnicache.methods()["omnicache-md"].plan_for([self.model], **{**none, **options})

    def tomesd(self, ratio: float) -> Plan:
        return omnicache.methods()["tomesd"].plan(ratio=ratio, mlp=self.mlp)

    def layered(self, wanted: float) -> Plan:
        path = self.folder / f"{self.task.name}-{self.task.steps}-layered-{wanted:g}.plan.json"
        if not path.exists():
            inputs = [one.call for one in self.task.others(CALIBRATION_CLIPS if self.film else CALIBRATION)]
            call = self.task.settings
            measured = profile(self.task.pipe, inputs, call, horizon=2, folder=self.folder / "profiles")
            calibrate_layered(self.task.pipe, inputs, call, speedup=wanted, measured=measured).save(path)
        return Plan.load(path)

    def __iter__(self) -> Iterator[Row]:
        md, all_three = self.md, omnicache.methods()["omnicache-md"].plan_for([self.model])
        best = (lambda: all_three) if self.film else (lambda: md(token=0.4))
        for ratio in (0.2, 0.4, 0.5) if self.film else (0.2, 0.4, 0.5, 0.6):
            yield Row(METHODS, f"Token Cache {ratio:.0%}", f"{ratio:.0%}", lambda r=ratio: md(token=r))
        if self.film:
            for ratio in (0.2, 0.4, 0.5):
                yield Row(METHODS, f"Frame Cache {ratio:.0%}", f"{ratio:.0%}", lambda r=ratio: md(frame=r))
            for ratio in (0.1, 0.3, 0.5):
                yield Row(METHODS, f"Block Cache {ratio:.0%}", f"{ratio:.0%}", lambda r=ratio: md(block=r))
            parts = (f"{all_three.options[part]:.0%} of {part}s" for part in ("token", "frame", "block"))
            yield Row(METHODS, "all three", ", ".join(parts), best)
        yield Row(METHODS, "ToMeSD 40%", "40%", lambda: self.tomesd(0.4))
        for label, wanted in LAYERED.items():
            yield Row(METHODS, label, "", lambda w=wanted: self.layered(w))
        name = "all three" if self.film else "Token Cache 40%"
        for label, wanted in LAYERED.items():
            yield Row(METHODS, f"{name} + {label}", "", lambda w=wanted: self.layered(w) + best())
        for ratio in (0.75, 0.5):
            plan = omnicache.methods()["fewer-steps"].plan(ratio=ratio)
            yield Row(METHODS, f"fewer steps, {ratio:.0%} of them", "", lambda plan=plan: plan)
        if self.film:
            for placement in ("s2t-t2s", "s2s-t2t"):
                yield Row("placement", placement.upper(), "30%, 30%", lambda p=placement: md(frame=0.3, block=0.3, placement=p))
        for part in ("token", "frame") if self.film else ("token",):
            for fill, name in (("cache", "cached value"), ("match", "copy of the match"), ("between", "interpolated")):
                yield Row(f"fill, {part}s", f"{part}s, {name}", "40%", lambda p=part, f=fill: md(**{p: 0.4}, fill=f))
        yield Row("fill, tokens", "tokens, averaged and copied (ToMeSD)", "40%", lambda: self.tomesd(0.4))
        for patches in (1, 2, 4):
            yield Row("patches", f"{patches}x{patches} patches", "50%", lambda k=patches: md(token=0.5, patches=k))
        for ratio, more in ((0.4, (0.1,)), (0.3, (0.1, 0.1))):
            label = f"4x4 patches, {ratio:.0%}, then joined, {', '.join(f'{m:.0%}' for m in more)}"
            yield Row("patches", label, "50%", lambda r=ratio, h=more: md(token=r, patches=4, hierarchy=h))
        for shared in (1, 4, 1000):
            label = "all blocks share a choice" if shared > 99 else f"{shared} blocks share a choice"
            yield Row("shared", label, "40%", lambda s=shared: md(token=0.4, shared=s))


def motion(task: Task, clips: torch.Tensor, uncached: torch.Tensor) -> dict[str, Any]:
    """Whether clips ``(n, f, 3, h, w)`` move as they should: the share that obeys its law of motion and the mean errors of what is
    tracked (centre in shares of the width, turn in radians, size as a ratio), and how much changes from frame to frame, as a
    ratio to the uncached clip of the same seed (below 1: slower, or frozen)."""
    errors = [against_law(track(clip), one.label.split()[1]) for clip, one in zip(clips, task.inputs, strict=True)]
    average = torch.tensor([[float(e[part].mean()) for part in NEAR] for e in errors])
    near = (average <= torch.tensor(list(NEAR.values()))).all(1).float()
    change = clips.diff(dim=1).abs().flatten(1).mean(1) / uncached.diff(dim=1).abs().flatten(1).mean(1)
    return {"obeys": mean95(near), "change": mean95(change)} | {part: mean95(average[:, i]) for i, part in enumerate(NEAR)}


def study(name: str, a: argparse.Namespace) -> None:
    """All rows of one model."""
    pipe, samples = zoo.load(name), a.samples or (256 if zoo.frames(name) == 1 else 32)
    task = Task(name, pipe, samples, STEPS.get(name))
    path, rows = a.out / f"multidimensional-{name}.json", Rows(task, a.work)
    known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"rows": {}}
    quality = Quality(task, a.batch, a.work)
    order = [f"{row.group}: {row.label}" for row in rows]
    whole_and_part = cache(lambda every: quality if every == 1 else quality.thinned(every))

    def keep() -> None:
        a.out.mkdir(parents=True, exist_ok=True)
        about = {"model": name, "class": type(pipe).__name__, "unit": task.unit, "steps": task.steps, "guidance": task.guidance}
        about |= {"watts": a.watts, "when": time.strftime("%Y-%m-%d"), **environment(torch.device("cpu"))}
        if a.only == "tables":  # nothing was measured now
            about = {**about, **known}
        known["rows"] = {name: known["rows"][name] for name in (*order, *known["rows"]) if name in known["rows"]}
        kept = {k: known[k] for k in ("uncached", "rows") if k in known}
        write(path, rounded({**about, **kept}, 5))
        path.with_suffix(".md").write_text(markdown(json.loads(path.read_text())))

    if a.only in ("all", "quality") and known.get("uncached", {}).get("samples") != samples:
        known["uncached"], made = quality.of(None)
        if task.frames > 1:
            known["uncached"]["motion"] = motion(task, made, made)
        keep()
    for row in rows:
        name_of_row = f"{row.group}: {row.label}"
        if a.only == "tables" or (a.rows and not any(part in name_of_row for part in a.rows)):
            continue
        began, plan = time.perf_counter(), row.make()
        found = known["rows"].setdefault(name_of_row, {})
        found |= {
            "group": row.group,
            "label": row.label,
            "ratio": row.ratio,
            "plan": plan.describe(),
            "key": digest(plan.to_json()),
        }
        twins = [r for r in known["rows"].values() if r.get("key") == found["key"]]  # the same, in other tables

        def done(part: str, count: str, wanted: int, twins: list[dict[str, Any]] = twins, found: dict[str, Any] = found) -> bool:
            have = next((r[part] for r in twins if r.get(part, {}).get(count, 0) >= wanted), None)
            if have is not None:
                found[part] = have
            return have is not None

        every = 1 if row.group == METHODS else THINNED
        if a.only in ("all", "quality") and not done("quality", "samples", len(task.inputs[::every])):
            drawn = whole_and_part(every)
            found["quality"], made = drawn.of(plan)
            if task.frames > 1:
                found["quality"]["motion"] = motion(drawn.task, made, drawn.uncached)
        if a.only in ("all", "speed") and not done("speed", "pairs", a.pairs):
            about = {"at_once": a.at_once, "threads": torch.get_num_threads()}
            found["speed"] = speed(pipe, lambda: task.draw(0, a.at_once), plan, a.pairs) | about
        keep()
        if (seconds := time.perf_counter() - began) > 1:
            told = [f"{found['quality']['psnr']['mean']:.1f} dB"] if "quality" in found else []
            told += [f"{found['speed']['speedup']['median']:.2f}x"] if "speed" in found else []
            print(f"{name}  {name_of_row}  {'  '.join(told)}  ({seconds:.0f} s)", flush=True)
    keep()


def main() -> None:
    ask = argparse.ArgumentParser()
    ask.add_argument("models", nargs="+")
    ask.add_argument("--samples", type=int, default=None, help="inputs to draw; 256, or 32 where they are clips")
    ask.add_argument("--batch", type=int, default=8, help="inputs in one call, for quality")
    ask.add_argument("--at-once", type=int, default=2, help="inputs in one call, for speed")
    ask.add_argument("--pairs", type=int, default=11)
    ask.add_argument("--only", choices=("all", "quality", "speed", "tables"), default="all")
    ask.add_argument("--rows", nargs="+", default=[], help="only rows whose group and label hold one of these")
    ask.add_argument("--watts", type=float, default=300.0, help="of the estimate of energy; the paper's is 300")
    ask.add_argument("--work", type=Path, default=Path(".profiles"), help="uncached samples, profiles and plans are kept here")
    ask.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    a = ask.parse_args()
    for name in a.models:
        study(name, a)


if __name__ == "__main__":
    main()
