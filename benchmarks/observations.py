"""What the trajectory paper observed (arXiv 2508.16212, sections 3.2.1 and 3.2.2), measured again on the shipped model.

    python benchmarks/observations.py [--steps 16 30 50 250] [--out benchmarks/results]

For each step count: one reuse injected into an otherwise uncached run, swept over the steps, and the error of the final picture
it leaves, as it is and relative to the noise that it injected; the signal-to-noise ratio over the steps; the similarity of
neighbouring outputs over the steps; and how alike the paths of different classes and seeds are. Writes observations.json and
observations.png.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

import omnicache
from omnicache import zoo
from omnicache.calibrate import geometry
from omnicache.calibrate.record import Recorder, watched
from omnicache.granularity import Stack
from omnicache.measure.comparison import environment, rounded
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.predictors import Hold, Residual
from omnicache.runtime.step import Step
from omnicache.triggers import Every, Table

CLASSES = [4, 23, 42, 61, 80, 99]


def observe(pipe: Any, steps: int, guidance: float, positions: int) -> dict[str, Any]:
    """All observations at one step count."""

    @torch.no_grad()
    def draw() -> torch.Tensor:
        seeds = [torch.Generator().manual_seed(i) for i in range(len(CLASSES))]
        return pipe(CLASSES, guidance_scale=guidance, num_inference_steps=steps, generator=seeds, output_type="pt").images

    latents: list[torch.Tensor] = []
    noise, alike, snr = [0.0] * steps, [1.0] * steps, [0.0] * steps
    last: list[torch.Tensor] = []

    def look(step: Step, truth: torch.Tensor, rehearsed: tuple[torch.Tensor, ...]) -> None:
        now = truth.flatten(1)
        if last:
            alike[step.index] = float(torch.cosine_similarity(now, last[0]).mean())
        last[:] = [now.clone()]
        snr[step.index] = 1 / max(step.sigma or 1e-6, 1e-6) ** 2
        if rehearsed:
            noise[step.index] = float((rehearsed[0] - truth).flatten(1).norm(dim=1).mean() / truth.flatten(1).norm(dim=1).mean())

    recorder = Recorder(look, lambda step: (0,) if step.index else ())
    with watched(pipe, Policy(Every(1), Stack(), Residual(Hold()), fix=recorder), latents):
        base = draw()
    n = len(CLASSES)
    # The pipeline carries the latents twice, for the two halves of the guidance.
    paths = [geometry.project(geometry.gram([x[:n][i] for x in latents])) for i in range(n)]
    swept = sorted({round(1 + k * (steps - 2) / max(positions - 1, 1)) for k in range(min(positions, steps - 1))})
    error = []
    for i in swept:
        marks = "".join("." if j == i else "#" for j in range(steps))
        with omnicache.cache(pipe, Plan("one reuse", (Policy(Table(marks), Stack(), Residual(Hold())),), min_steps=0)):
            made = draw()
        error.append(float(((made - base).flatten(1).norm(dim=1) / base.flatten(1).norm(dim=1)).mean()))
    similar = [geometry.similarity(paths[i], paths[j]) for i in range(n) for j in range(i)]
    return {
        "steps": steps,
        "injected_at": swept,
        "final_error": error,
        "injected_noise": [noise[i] for i in swept],
        "error_per_noise": [e / noise[i] if noise[i] else None for e, i in zip(error, swept, strict=True)],
        "snr": snr,
        "output_similarity": alike,
        "path_similarity": {"mean": sum(similar) / len(similar), "least": min(similar)},
        "curvature": torch.stack([geometry.menger(p) for p in paths]).median(0).values.tolist(),
    }


def draw_plots(results: list[dict[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(13, 7), layout="constrained")
    for one in results:
        total, label = one["steps"] - 1, f"{one['steps']} steps"
        at = [i / total for i in one["injected_at"]]
        axes[0, 0].plot(at, one["final_error"], marker=".", label=label)
        axes[0, 1].plot(at, one["injected_noise"], marker=".", label=label)
        axes[0, 2].plot(at, one["error_per_noise"], marker=".", label=label)
        every = [i / total for i in range(one["steps"])]
        axes[1, 0].plot(every, one["snr"], label=label)
        axes[1, 1].plot(every[1:], one["output_similarity"][1:], label=label)
        axes[1, 2].plot(every[1:], one["curvature"], label=label)
    titles = (
        (
            "One reuse at this step: error of the picture",
            "… noise it injects, share of the output",
            "… error for each unit of noise",
        ),
        ("Signal-to-noise ratio", "Similarity of neighbouring outputs (cosine)", "Curvature of the path (Menger)"),
    )
    for row, names in zip(axes, titles, strict=True):
        for axis, name in zip(row, names, strict=True):
            axis.set_title(name, fontsize=10, loc="left")
            axis.set_xlabel("share of the run")
            axis.grid(alpha=0.25)
    for axis in (axes[0, 0], axes[0, 1], axes[0, 2], axes[1, 0], axes[1, 2]):
        axis.set_yscale("log")
    axes[0, 0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    ask = argparse.ArgumentParser()
    ask.add_argument("--steps", type=int, nargs="+", default=[16, 30, 50, 250])
    ask.add_argument("--guidance", type=float, default=2.0)
    ask.add_argument("--positions", type=int, default=15, help="places at which one reuse is injected")
    ask.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    a = ask.parse_args()
    pipe = zoo.load("emoji")
    results = [observe(pipe, steps, a.guidance, a.positions if steps < 200 else min(a.positions, 8)) for steps in a.steps]
    a.out.mkdir(parents=True, exist_ok=True)
    record = {"model": "emoji", "guidance": a.guidance, "classes": CLASSES, **environment(torch.device("cpu")), "results": results}
    (a.out / "observations.json").write_text(json.dumps(rounded(record, 6)) + "\n")
    draw_plots(results, a.out / "observations.png")
    for one in results:
        late, early = one["error_per_noise"][-1], one["error_per_noise"][len(one["error_per_noise"]) // 4]
        alike = one["path_similarity"]
        print(
            f"{one['steps']:4d} steps: paths alike {alike['mean']:.3f}, least {alike['least']:.3f}; "
            f"error for each unit of noise, a quarter in {early:.4f}, at the end {late:.4f}"
        )


if __name__ == "__main__":
    main()
