"""What each part of OmniCache-Trajectory gives, on the shipped model, over 64 or more samples with 95 % intervals.

    python -m benchmarks.trajectory_ablation [--samples 64] [--guidance 1.5 2 4] [--out benchmarks/results]

Schedules (curvature, greedy, error, alternating, interval), reuse only / + correction / + filter, the modes of gamma, one stack
residual against per-module caches, and fewer-steps at equal compute. Every plan is calibrated on classes and seeds that are not
measured. Quality is PSNR to the uncached picture of the same seed, and the share of pictures that a classifier recognises; the
kernel distance to fresh uncached pictures (other seeds) tells about quality as such. Resumes: rows that the output holds already
are not measured again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from benchmarks.compact import write

import omnicache
from omnicache import zoo
from omnicache.calibrate import schedule
from omnicache.calibrate.trajectory import calibrate_trajectory
from omnicache.calibrate.uncached import Uncached
from omnicache.granularity import Stack
from omnicache.measure import accuracy, confidence95, kid, psnr
from omnicache.measure.comparison import environment, rounded
from omnicache.measure.flops import denoiser_flops
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.predictors import Hold, Residual
from omnicache.triggers import Table

STEPS = 50
CALIBRATION = (3, 17, 33, 48, 63, 78, 88, 97)


def variants() -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and calibration options of every variant; "schedule" options are taken literally."""
    for order in ("error", "alternate", "curvature"):
        yield f"{order}: reuse only", {"order": order, "correct": False}
        yield f"{order}: + correction", {"order": order, "cutoff": None}
        yield f"{order}: + correction + filter", {"order": order, "cutoff": 0.25}
    yield "greedy: + correction", {"order": "greedy", "cutoff": None}
    yield "curvature (turning angle): + correction", {"order": "curvature", "curvature": "turning", "cutoff": None}
    yield "curvature (second difference): + correction", {"order": "curvature", "curvature": "second", "cutoff": None}
    yield "alternate: + correction, literal gamma", {"order": "alternate", "gamma": "literal", "cutoff": None}
    yield "alternate: + correction, rescaled gamma", {"order": "alternate", "gamma": "rescaled", "cutoff": None}
    yield "error: + correction, literal gamma", {"order": "error", "gamma": "literal", "cutoff": None}
    yield "error: + correction, rescaled gamma", {"order": "error", "gamma": "rescaled", "cutoff": None}
    yield "curvature: + correction, literal gamma", {"order": "curvature", "gamma": "literal", "cutoff": None}
    yield "alternate: + correction + snr filter", {"order": "alternate", "cutoff": 0.25, "switch": "snr"}
    yield "alternate: + correction + filter at 0.5", {"order": "alternate", "cutoff": 0.5}
    yield "alternate, per module: reuse only", {"order": "alternate", "correct": False, "granularity": "module"}
    yield "alternate, per module: + correction", {"order": "alternate", "cutoff": None, "granularity": "module"}


def main() -> None:
    ask = argparse.ArgumentParser()
    ask.add_argument("--samples", type=int, default=64)
    ask.add_argument("--batch", type=int, default=16)
    ask.add_argument("--guidance", type=float, nargs="+", default=[1.5, 2.0, 4.0])
    ask.add_argument("--reuse", type=float, default=0.5)
    ask.add_argument("--only", default="", help="measure only variants whose name contains this")
    ask.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    a = ask.parse_args()
    pipe, judge = zoo.load("emoji"), zoo.classifier("emoji")
    classes = [(i * 37) % 100 for i in range(a.samples)]
    path = a.out / "trajectory_ablation.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"] if path.exists() else []

    @torch.no_grad()
    def draw(guidance: float, offset: int = 0) -> torch.Tensor:
        made = []
        for at in range(0, a.samples, a.batch):
            seeds = [torch.Generator().manual_seed(offset + i) for i in range(at, min(at + a.batch, a.samples))]
            call = {"guidance_scale": guidance, "num_inference_steps": STEPS, "generator": seeds, "output_type": "pt"}
            made.append(pipe(classes[at : at + a.batch], **call).images)
        return torch.cat(made)

    def plans(guidance: float) -> Iterator[tuple[str, Any]]:
        call = {"num_inference_steps": STEPS, "guidance_scale": guidance, "output_type": "pt"}
        count = round(a.reuse * STEPS)
        inputs = [{"class_labels": [c], "generator": torch.Generator().manual_seed(5000 + c)} for c in CALIBRATION]
        runs: dict[str, Uncached] = {}  # the uncached runs are the same for all variants of a granularity

        def calibrated(options: dict[str, Any]) -> Plan:
            kind = options.get("granularity", "stack")
            if kind not in runs:
                runs[kind] = Uncached(pipe, inputs, call, False, kind)
            return calibrate_trajectory(pipe, inputs, call, False, reuse=a.reuse, measured=runs[kind], **options)

        for name, options in variants():
            yield name, lambda options=options: calibrated(options)
        marks = schedule.interval(STEPS, count)
        yield "interval: reuse only", lambda: Plan("interval", (Policy(Table(marks), Stack(), Residual(Hold())),))
        yield "fewer-steps", lambda: omnicache.methods()["fewer-steps"].plan(ratio=1 - a.reuse)
        yield "taylorseer at the same compute", lambda: omnicache.methods()["taylorseer"].plan(interval=2, warmup=2)

    @torch.no_grad()
    def one() -> None:
        pipe([3], guidance_scale=2.0, num_inference_steps=STEPS, generator=torch.Generator().manual_seed(0), output_type="pt")

    work = denoiser_flops(pipe.transformer, one)
    for guidance in a.guidance:
        base, other = draw(guidance), draw(guidance, offset=10_000)
        with torch.no_grad():
            features = judge.features(other)
        for name, make in plans(guidance):
            if any(r["variant"] == name and r["guidance"] == guidance for r in rows) or a.only not in name:
                continue
            plan = make()
            with omnicache.cache(pipe, plan) as run:
                made = draw(guidance)
                computed, kept = run.computed, run.cache_bytes
            with omnicache.cache(pipe, plan):
                share = denoiser_flops(pipe.transformer, one) / work
            each = psnr(made, base)
            with torch.no_grad():
                distance, spread = kid(judge.features(made), features, 20, min(50, a.samples))
            row = {
                "variant": name,
                "guidance": guidance,
                "samples": a.samples,
                "psnr": float(each.mean()),
                "psnr_95": list(confidence95(each)),
                "right": float(accuracy(judge, made, torch.tensor(classes)).float().mean()),
                "kid": float(distance),
                "kid_std": float(spread),
                "compute_fraction": share,
                "cache_bytes": kept,
                "computed": computed,
                "gamma": [g for g in plan.measured.get("gamma", ()) if g],
                "cosine": [c for c in plan.measured.get("cosine", ()) if c],
            }
            rows.append(row)
            low, high = row["psnr_95"]
            print(
                f"guidance {guidance:g}  {name:46s} {row['psnr']:6.2f} dB ({low:.2f} to {high:.2f})  right {row['right']:.0%}  "
                f"KID {row['kid']:+.4f}  work {share:.1%}  {computed}",
                flush=True,
            )
            a.out.mkdir(parents=True, exist_ok=True)
            record = {"model": "emoji", "steps": STEPS, "reuse": a.reuse, "when": time.strftime("%Y-%m-%d")}
            write(path, rounded({**record, **environment(torch.device("cpu")), "rows": rows}))


if __name__ == "__main__":
    main()
