from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import omnicache
from omnicache import zoo
from omnicache.cli.calibrate import picture_data
from omnicache.cli.common import err, load, print_json
from omnicache.errors import OmniCacheError
from omnicache.guards import human_bytes
from omnicache.measure import accuracy
from omnicache.measure.comparison import Comparison, Contender, environment, rounded
from omnicache.report import write_grid, write_page

GUIDANCE = 2.0


def demo(
    model: Annotated[str, typer.Option(help="A model that ships with OmniCache.")] = "emoji",
    out: Annotated[Path, typer.Option(help="Folder for index.html and grid.png.")] = Path("omnicache-demo"),
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout, and nothing else.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer pictures and repeats: under two minutes.")] = False,
    images: Annotated[int | None, typer.Option(min=4, max=100, help="Pictures for quality (default 16).")] = None,
    steps: Annotated[int, typer.Option(min=8, help="Sampler steps.")] = 50,
    repeats: Annotated[int | None, typer.Option(min=1, help="Interleaved pairs for each timing (default 5).")] = None,
) -> None:
    """Draw pictures without and with every method, and show what was gained and what was lost."""
    judged = [name for name in zoo.names() if (zoo.path(name) / "classifier").exists()]
    if model not in judged:
        raise OmniCacheError(
            f"The demo needs a shipped model ({', '.join(judged) or 'none'}), because those bring a judge of their pictures; "
            f"{model!r} is none. For a pipeline of your own: omnicache doctor {model}, then omnicache run {model} -m taylorseer."
        )
    count, pairs = images or (6 if quick else 16), repeats or (2 if quick else 5)
    pipe, judge = load(model), zoo.classifier(model)
    classes = spread(len(pipe.labels), count)

    @torch.no_grad()
    def call(start: int, stop: int) -> torch.Tensor:
        seeds = [torch.Generator().manual_seed(i) for i in range(start, stop)]
        made = pipe(classes[start:stop], guidance_scale=GUIDANCE, generator=seeds, num_inference_steps=steps, output_type="pt")
        return made.images.float().cpu()

    def right(pictures: torch.Tensor) -> float:
        return float(accuracy(judge, pictures, torch.tensor(classes[: len(pictures)])).float().mean())

    device = next(pipe.transformer.parameters()).device
    result: dict[str, Any] = {"model": model, "steps": steps, "guidance": GUIDANCE, "images": count, **environment(device)}
    comparison = Comparison(pipe, call, count, 2, pairs, right)
    calibration = None
    bar = Progress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=err, disable=not err.is_terminal)
    with bar:
        task = bar.add_task("calibrating", total=None)
        plans, skipped = {}, []
        contenders = []
        for contender in lineup(pipe, steps, quick):
            if isinstance(contender, dict):
                skipped.append(contender)
            else:
                contenders.append(contender)
                plans[contender.label] = contender.plan
        bar.update(task, description="uncached", total=len(contenders) + 1)
        result["baseline"] = comparison.baseline()
        bar.advance(task)
        runs = []
        for contender in contenders:
            bar.update(task, description=contender.label)
            try:
                runs.append(comparison.measure(contender))
            except OmniCacheError as no:
                skipped.append({"method": contender.plan.method, "why": str(no)})
            bar.advance(task)
    result |= {"runs": runs, "skipped": skipped, "command": "omnicache " + shlex.join(sys.argv[1:])}
    if "omnicache-trajectory" in plans:
        plan = plans["omnicache-trajectory"]
        names = {v: k for k, v in pipe.labels.items()}
        inputs = calibration_inputs(len(pipe.labels), 4 if quick else 8)
        calibration = picture_data(plan, [f"{names[one['class_labels'][0]]}, seed {one['seed']}" for one in inputs])
    result = rounded(result)
    out.mkdir(parents=True, exist_ok=True)
    write_page(result, comparison.pictures, out, calibration)
    write_grid(comparison.pictures, result, out / "grid.png")
    if as_json:
        print_json(result)
    show(result, out, err if as_json else Console(highlight=False))


def spread(classes: int, count: int) -> list[int]:
    """``count`` class ids spread over all, the same for every run."""
    return [(i * classes) // count for i in range(count)]


def calibration_inputs(classes: int, count: int) -> list[dict[str, Any]]:
    """Classes that the demo does not draw, two seeds each."""
    return [{"class_labels": [((i // 2) * classes // max(count // 2, 1) + 3) % classes], "seed": 1000 + i} for i in range(count)]


def lineup(pipe: Any, steps: int, quick: bool) -> Iterator[Contender | dict[str, Any]]:
    """What the demo measures: every method, calibrated where it can be; or ``{"method", "why"}`` for one that does not apply."""
    asked = [
        {"class_labels": one["class_labels"], "generator": torch.Generator().manual_seed(one["seed"])}
        for one in calibration_inputs(len(pipe.labels), 4 if quick else 8)
    ]
    call = {"num_inference_steps": steps, "guidance_scale": GUIDANCE, "output_type": "pt"}
    for name, entry in omnicache.methods().items():
        if name == "fewer-steps":
            for ratio in (0.5, 0.36, 0.24):
                yield Contender(f"{name} {ratio:g}", entry.plan(ratio=ratio))
            continue
        try:
            if entry.calibrate is not None:
                few = {"probes": 1} if quick and name == "omnicache-trajectory" else {}
                plan = omnicache.calibrate(pipe, asked, name, progress=False, **few, **call)
            else:
                plan = entry.plan()
            omnicache.enable(pipe, plan)
            omnicache.disable(pipe)
        except OmniCacheError as no:
            yield {"method": name, "why": str(no)}
            continue
        yield Contender(name, plan)


def show(result: dict[str, Any], out: Path, console: Console) -> None:
    """The table on the terminal."""
    base = result["baseline"]
    console.print(
        f"[bold]{result['model']}[/bold]: {result['images']} pictures, {result['steps']} steps, guidance {result['guidance']:g}, "
        f"{result['device']}. Uncached {base['seconds']:.1f} s ({base['denoiser_seconds']:.1f} s in the denoiser), "
        f"{base['class_accuracy']:.0%} recognised."
    )
    wide = console.width >= 120
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("method", "speedup", "work", "PSNR", "SSIM", "right", "kept", *(("steps",) if wide else ())):
        table.add_column(column, justify="left" if column in ("method", "steps") else "right", no_wrap=True)
    for run in sorted(result["runs"], key=lambda r: -r["speedup"]):
        table.add_row(
            run["label"],
            f"{run['speedup']:.2f}x",
            f"{run['compute_fraction']:.0%}",
            "same" if run["psnr"] is None else f"{run['psnr']:.1f} dB",
            f"{run['ssim']:.3f}",
            f"{run['class_accuracy']:.0%}",
            human_bytes(run["cache_bytes"]),
            *((run["computed"],) if wide else ()),
        )
    console.print(table)
    for skip in result["skipped"]:
        console.print(f"{skip['method']}: not shown. {skip['why']}")
    console.print(f"Pictures and charts: {out / 'index.html'}  {out / 'grid.png'}")
