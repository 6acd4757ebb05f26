"""The solvers of the Layered Cache on the shipped model: the same profile, the same speedups, other cells.

    python -m benchmarks.layered [--steps 20 50] [--speedups 1.5 2 2.5 3] [--samples 16] [--out benchmarks/results]

Every plan is made from one profile for each number of steps, on classes and seeds that are not measured. Quality is the relative L2
error of the final latent and the PSNR to the uncached picture of the same seed. "whole-steps" reuses all layers at the same steps,
chosen like "interacting": what deciding by layer is to beat. "squares" is the knapsack on squared losses, as for errors that are
independent of one another. Resumes: what the output or the folder of profiles holds already is not measured again.

``--horizons 0 5 11`` also tells how well the errors of these layers after a few steps foretell those in the end;
``--speedups`` without a number leaves the rest out.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from benchmarks.compact import write

import omnicache
from omnicache import zoo
from omnicache.calibrate.between import between
from omnicache.calibrate.layered import SOLVERS, refined, remeasure
from omnicache.calibrate.layers.batches import batches
from omnicache.calibrate.layers.budget import Budget, Rows
from omnicache.calibrate.layers.knapsack import knapsack
from omnicache.calibrate.layers.profile import PLACES, Profile, _Cells, profile
from omnicache.calibrate.layers.replay import Replay
from omnicache.granularity import Layers
from omnicache.measure import confidence95, psnr
from omnicache.measure.comparison import environment, rounded
from omnicache.models import discover
from omnicache.plan import Plan
from omnicache.runtime.clock import Tap

CALIBRATION = (3, 33, 63, 88)
GUIDANCE = 2.0


def inputs(classes: Sequence[int], first: int) -> list[dict[str, Any]]:
    return [{"class_labels": [c], "generator": torch.Generator().manual_seed(first + i)} for i, c in enumerate(classes)]


def profiled(pipe: Any, steps: int, horizon: int | None, folder: Path) -> Profile:
    call = {"num_inference_steps": steps, "guidance_scale": GUIDANCE, "output_type": "pt"}
    return profile(pipe, inputs(CALIBRATION, 5000), call, horizon=horizon, folder=folder)


def rows_of(pipe: Any, found: Profile, solver: str, speedup: float) -> Rows:
    budget = Budget.of(found.lat, speedup, found.interval, found.rest)
    if solver == "squares":
        cells = knapsack([[v * v for v in row] for row in found.loss], budget)
    else:
        cells = SOLVERS[solver](found, budget)
    return refined(discover(pipe.transformer), found, budget, cells)


class Judge:
    """Draws samples that no plan was made on, and compares them with the uncached ones."""

    def __init__(self, pipe: Any, steps: int, samples: int, batch: int = 8):
        classes = [(i * 37 + 5) % 100 for i in range(samples)]
        call = {"num_inference_steps": steps, "guidance_scale": GUIDANCE, "output_type": "pt"}
        self.pipe, self.calls = pipe, batches(pipe, inputs(classes, 0), call, batch)
        self.truth = self.draw()

    @torch.no_grad()
    def draw(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Final latents and pictures."""
        last: list[torch.Tensor] = []
        latents, pictures = [], []

        def look(plain: Any, *args: Any, **kwargs: Any) -> Any:
            out = plain(*args, **kwargs)
            last[:] = [out[0] if isinstance(out, tuple) else out.prev_sample]
            return out

        for call in self.calls:
            tap = Tap(self.pipe.scheduler, "step", look)
            self.pipe.scheduler.step = tap
            try:
                pictures.append(self.pipe(**{**call, "generator": [g.clone_state() for g in call["generator"]]}).images)
            finally:
                tap.remove()
            latents.append(last[0].flatten(1))
        return torch.cat(latents), torch.cat(pictures)

    def measure(self, plan: Plan, pairs: int) -> dict[str, Any]:
        with omnicache.cache(self.pipe, plan) as run:
            latents, pictures = self.draw()
            kept = run.cache_bytes
        error = (latents - self.truth[0]).norm(dim=1) / self.truth[0].norm(dim=1)
        each = psnr(pictures, self.truth[1])
        speed = remeasure(self.pipe, self.calls[:1], plan, pairs)["speedup"]
        figures = {"error": float(error.mean()), "error_95": list(confidence95(error)), "psnr": float(each.mean())}
        return figures | {"psnr_95": list(confidence95(each)), "measured_speedup": speed, "cache_bytes": kept}


def ranks(values: torch.Tensor) -> torch.Tensor:
    return values.argsort().argsort().double()


def horizons(pipe: Any, steps: int, layers: Sequence[int], interval: int = 5) -> list[dict[str, Any]]:
    """How well errors after so many steps, grown as ``profile`` grows them, foretell those in the end; on the cells of some layers
    and two inputs."""
    call = {"num_inference_steps": steps, "guidance_scale": GUIDANCE, "output_type": "pt"}
    todo = [t for t in range(1, steps) if t % interval]
    places = sorted({todo[round((len(todo) - 1) * (k / (PLACES - 1)) ** 2)] for k in range(PLACES)})
    found: dict[tuple[int, int], list[float]] = {}
    with Replay(pipe) as replay:
        tape = replay.record(batches(pipe, inputs(CALIBRATION[:2], 5000), call, 2)[0])
        cells = _Cells(replay, discover(replay.model), 0, list(layers))
        for t in todo:
            for layer in layers:
                run = cells.latents(tape, Layers(layer, layer + 1), t, steps - 1)[1:]
                found[layer, t] = [float((x - y).norm()) for x, y in zip(run, tape.latents[t:], strict=True)]
    rows = []
    for horizon in (1, 2, 4, 8):
        early = {(n, t): e[min(horizon, len(e)) - 1] for (n, t), e in found.items()}
        grown = {t: math.exp(sum(math.log(found[n, t][-1] / early[n, t]) for n in layers) / len(layers)) for t in places}
        growth = [between(grown, t) if grown else 1.0 for t in range(steps)]
        late = torch.tensor([e[-1] for e in found.values()])
        guess = torch.tensor([early[cell] * growth[cell[1]] for cell in found])
        ratio = (guess / late).log()
        agree = float(torch.corrcoef(torch.stack([ranks(guess), ranks(late)]))[0, 1])
        rows.append(
            {"steps": steps, "horizon": horizon, "rank_correlation": agree, "typical_factor": float(ratio.abs().mean().exp())}
        )
    return rows


def main() -> None:
    ask = argparse.ArgumentParser()
    ask.add_argument("--steps", type=int, nargs="+", default=[20, 50])
    ask.add_argument("--speedups", type=float, nargs="*", default=[1.5, 2.0, 2.5, 3.0])
    ask.add_argument("--solvers", nargs="+", default=["greedy", "knapsack", "squares", "interacting", "whole-steps"])
    ask.add_argument("--samples", type=int, default=16)
    ask.add_argument("--pairs", type=int, default=3)
    ask.add_argument("--horizon", type=int, default=None, help="of the profiles; to the end if not given")
    ask.add_argument("--horizons", type=int, nargs="*", default=[], help="layers on which shorter horizons are tried")
    ask.add_argument("--profiles", type=Path, default=Path(".profiles"))
    ask.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    a = ask.parse_args()
    pipe = zoo.load("emoji")
    path = a.out / "layered.json"
    known = json.loads(path.read_text()) if path.exists() else {"rows": [], "horizons": []}

    def keep() -> None:
        a.out.mkdir(parents=True, exist_ok=True)
        record = {"model": "emoji", "guidance": GUIDANCE, "when": time.strftime("%Y-%m-%d"), **environment(torch.device("cpu"))}
        write(path, rounded({**record, **{k: known[k] for k in ("rows", "horizons")}}, 6))

    for steps in a.steps:
        if not a.speedups:
            break
        found, judge = profiled(pipe, steps, a.horizon, a.profiles), None
        for speedup in a.speedups:
            for solver in a.solvers:
                key = {"steps": steps, "speedup": speedup, "solver": solver, "horizon": found.horizon, "samples": a.samples}
                if any(all(r[k] == v for k, v in key.items()) for r in known["rows"]):
                    continue
                judge = judge or Judge(pipe, steps, a.samples)
                began = time.perf_counter()
                rows = rows_of(pipe, found, solver, speedup)
                seconds = time.perf_counter() - began
                plan = omnicache.methods()["omnicache-layered"].plan(schedule=rows)
                row = {
                    **key,
                    **judge.measure(plan, a.pairs),
                    "foreseen_error": found.joint.size(rows),
                    "solved_in": seconds,
                    "rows": rows,
                }
                known["rows"].append(row)
                print(
                    f"{steps:3d} steps  {speedup:g}x  {solver:12s} error {row['error']:.4f}, foreseen {row['foreseen_error']:.4f}  "
                    f"{row['psnr']:5.1f} dB  {row['measured_speedup']:.2f}x  solved in {seconds:.1f} s",
                    flush=True,
                )
                keep()
    if a.horizons:
        known["horizons"] = horizons(pipe, a.steps[0], a.horizons)
        for row in known["horizons"]:
            print(row, flush=True)
        keep()


if __name__ == "__main__":
    main()
