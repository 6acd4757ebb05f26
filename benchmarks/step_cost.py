"""What one step costs: full, wholly reused, and through every method, on the shipped model.

    python benchmarks/step_cost.py [--batch 16] [--repeats 5] [--out benchmarks/results/step_cost.json]

A batch of 16 pictures with guidance. Full and reused steps are timed in interleaved pairs within one run, and medians and
their ratio are printed with the load average. Run it on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

import torch

import omnicache
from omnicache import zoo
from omnicache.granularity import MLP, Attention, Stack
from omnicache.measure.comparison import environment, rounded
from omnicache.measure.flops import denoiser_flops
from omnicache.measure.stopwatch import Stopwatch
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.predictors import Hold, Residual, Taylor
from omnicache.triggers import Table

STEPS = 50


def step_ratio(pipe: Any, draw: Any, policy: Policy, repeats: int) -> dict[str, float]:
    """Median seconds of a full and of a reused step in one run that alternates them, and the median of their ratios."""
    full, reused = [], []
    for _ in range(repeats):
        with omnicache.cache(pipe, Plan("alternating", (policy,))), Stopwatch(pipe.transformer) as watch:
            draw()
        full += watch.each[2::2]
        reused += watch.each[3::2]
    ratios = [b / a for a, b in zip(full, reused, strict=True)]
    return {
        "full_ms": 1e3 * statistics.median(full),
        "reused_ms": 1e3 * statistics.median(reused),
        "ratio": statistics.median(ratios),
        "ratio_low": statistics.quantiles(ratios, n=20)[0],
        "ratio_high": statistics.quantiles(ratios, n=20)[-1],
    }


def whole_runs(pipe: Any, draw: Any, repeats: int) -> list[dict[str, Any]]:
    """Speedup against the share of work, for whole-step and per-module methods, in interleaved pairs."""
    plain = denoiser_flops(pipe.transformer, draw)
    inputs = [{"class_labels": [c], "generator": torch.Generator().manual_seed(c)} for c in (5, 35, 65, 95)]
    call = {"num_inference_steps": STEPS, "guidance_scale": 2.0, "output_type": "pt"}
    trajectory = omnicache.calibrate(pipe, inputs, "omnicache-trajectory", progress=False, reuse=0.5, **call)
    methods: list[tuple[str, str, Any, dict[str, Any]]] = [
        ("omnicache-trajectory", "whole step", trajectory, {}),
        ("fora stack", "whole step", "fora", {"granularity": "stack"}),
        ("taylorseer stack", "whole step", "taylorseer", {}),
        ("fora", "per module", "fora", {}),
        ("taylorseer module", "per module", "taylorseer", {"granularity": "module"}),
        ("toca", "per module", "toca", {}),
        ("speca", "per module", "speca", {}),
    ]
    rows = []
    for name, kind, method, options in methods:
        with omnicache.cache(pipe, method, **options):
            work = denoiser_flops(pipe.transformer, draw) / plain
        ratios = []
        for i in range(repeats):
            seconds = {}
            for cached in (False, True) if i % 2 == 0 else (True, False):
                if cached:
                    with omnicache.cache(pipe, method, **options), Stopwatch(pipe.transformer) as watch:
                        draw()
                else:
                    with Stopwatch(pipe.transformer) as watch:
                        draw()
                seconds[cached] = watch.seconds
            ratios.append(seconds[False] / seconds[True])
        speedup = statistics.median(ratios)
        rows.append({"method": name, "kind": kind, "speedup": speedup, "low": min(ratios), "high": max(ratios), "work": work})
        rows[-1]["share_of_ideal"] = speedup * work
    return rows


def main() -> None:
    ask = argparse.ArgumentParser()
    ask.add_argument("--batch", type=int, default=16)
    ask.add_argument("--repeats", type=int, default=3)
    ask.add_argument("--out", type=Path, default=Path("benchmarks/results/step_cost.json"))
    a = ask.parse_args()
    pipe = zoo.load("emoji")
    classes = [i * 100 // a.batch for i in range(a.batch)]

    @torch.no_grad()
    def draw() -> None:
        seeds = [torch.Generator().manual_seed(i) for i in range(a.batch)]
        pipe(classes, guidance_scale=2.0, num_inference_steps=STEPS, generator=seeds, output_type="pt")

    draw()
    when = Table("##" + "#." * ((STEPS - 2) // 2))
    result: dict[str, Any] = {
        "batch": a.batch,
        "steps": STEPS,
        "guidance": 2.0,
        **environment(torch.device("cpu")),
        "when": time.strftime("%Y-%m-%d"),
    }
    result["steps_cost"] = {
        "stack residual": step_ratio(pipe, draw, Policy(when, Stack(), Residual(Hold())), a.repeats),
        "stack Taylor order 2": step_ratio(pipe, draw, Policy(when, Stack(), Residual(Taylor(2))), a.repeats),
        "attention and MLP outputs": step_ratio(pipe, draw, Policy(when, Attention() | MLP(), Hold()), a.repeats),
    }
    result["runs"] = whole_runs(pipe, draw, a.repeats)
    result["load_average_after"] = list(os.getloadavg())
    a.out.parent.mkdir(parents=True, exist_ok=True)
    a.out.write_text(json.dumps(rounded(result), indent=1) + "\n")
    for name, cost in result["steps_cost"].items():
        print(f"{name:28s} full {cost['full_ms']:7.1f} ms, reused {cost['reused_ms']:6.2f} ms: {cost['ratio']:.2%} of a full step")
    for row in result["runs"]:
        print(
            f"{row['method']:22s} {row['kind']:10s} speedup {row['speedup']:.2f} ({row['low']:.2f}-{row['high']:.2f}), "
            f"work {row['work']:.1%}, {row['share_of_ideal']:.1%} of 1/work"
        )
    print(f"load average {result['load_average']} before, {[round(v, 2) for v in result['load_average_after']]} after")


if __name__ == "__main__":
    main()
