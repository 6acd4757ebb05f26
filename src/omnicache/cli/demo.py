from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import omnicache
from omnicache import zoo
from omnicache.cli.common import chosen as names_in
from omnicache.cli.common import err, load, print_json
from omnicache.cli.options import AsJson
from omnicache.cli.record import Record
from omnicache.errors import OmniCacheError
from omnicache.guards import human_bytes
from omnicache.measure import Input, Task
from omnicache.measure.comparison import Comparison, Contender, environment, rounded
from omnicache.report import write_clips, write_grid, write_page
from omnicache.report.calibration import picture_data
from omnicache.report.run import Run
from omnicache.report.verdict import Verdict


class Size(NamedTuple):
    """How much is drawn: inputs, how many of them at once, timed pairs, and inputs to calibrate on."""

    images: int
    batch: int
    pairs: int
    calibration: int


SHOWN = (
    *("none", "fewer-steps", "fora", "taylorseer", "teacache", "speca", "dicache", "ab-cache", "cfg-cache", "toca", "deepcache"),
    *("omnicache-md", "omnicache-trajectory", "omnicache-optimal"),
)
"""One of each kind that is ready within a minute: all of them take an hour, and ``omnicache bench`` compares those."""
SIZES = {"picture": Size(16, 2, 5, 8), "clip": Size(8, 1, 3, 2)}
QUICK = {"picture": Size(6, 2, 2, 4), "clip": Size(4, 1, 1, 1)}


def demo(
    model: Annotated[str, typer.Option(help="A model of the zoo.")] = "emoji",
    out: Annotated[Path, typer.Option(help="Folder for index.html, grid.png and, of clips, clips.gif.")] = Path("omnicache-demo"),
    as_json: AsJson = False,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer pictures and repeats.")] = False,
    images: Annotated[int | None, typer.Option(min=4, max=100, help="Pictures (default 16) or clips (8), for quality.")] = None,
    steps: Annotated[int | None, typer.Option(min=8, help="Sampler steps; the model's own number if not given.")] = None,
    methods: Annotated[
        str | None, typer.Option(help='Names with commas between them, or "all"; one of each kind if not given.')
    ] = None,
    repeats: Annotated[int | None, typer.Option(min=1, help="Interleaved pairs for each timing (default 5; 3 of clips).")] = None,
) -> None:
    """Draw pictures or clips without and with methods of every kind, and show what was gained and what was lost."""
    shown = [name for name in zoo.names() if zoo.labels(name)]
    if model not in (*shown, *zoo.IN_THE_CLONE):
        raise OmniCacheError(
            f"The demo needs a shipped model ({', '.join(shown) or 'none'}), because those bring a judge of their pictures; "
            f"{model!r} is none. For a pipeline of your own: omnicache doctor {model}, then omnicache run {model} -m taylorseer."
        )
    names = [name for name in omnicache.methods() if name in SHOWN] if methods is None else names_in(methods)
    pipe = load(model)
    size = (QUICK if quick else SIZES)["clip" if zoo.frames(model) > 1 else "picture"]
    task = Task(model, pipe, images or size.images, steps)
    comparison = Comparison(pipe, task.draw, len(task.inputs), size.batch, repeats or size.pairs, task.share_recognised)
    device = next(comparison.denoiser.parameters()).device
    result: dict[str, Any] = {"model": model, "steps": task.steps, "guidance": task.guidance, "images": len(task.inputs)}
    result |= {"unit": task.unit, "inputs": [one.label for one in task.inputs], **environment(device)}
    others = task.others(size.calibration)
    bar = Progress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=err, disable=not err.is_terminal)
    with bar:
        row = bar.add_task("calibrating", total=None)
        contenders, skipped = lineup(task, others, names, quick)
        bar.update(row, description="uncached", total=len(contenders) + 1)
        result["baseline"] = comparison.baseline()
        bar.advance(row)
        runs = []
        for contender in contenders:
            bar.update(row, description=contender.label)
            try:
                runs.append(comparison.measure(contender))
            except OmniCacheError as no:
                skipped.append({"method": contender.plan.method, "why": str(no)})
            bar.advance(row)
    result |= {"runs": runs, "skipped": skipped, "command": "omnicache " + shlex.join(sys.argv[1:])}
    traced = next((one.plan for one in contenders if one.plan.method == "omnicache-trajectory"), None)
    calibration = picture_data(traced, list(map(str, others))) if traced else None
    result = rounded(result)
    out.mkdir(parents=True, exist_ok=True)
    files = [write_page(result, comparison.pictures, out, calibration), write_grid(comparison.pictures, result, out / "grid.png")]
    if task.frames > 1:
        files += [write_clips(comparison.pictures, result, out / name) for name in ("clips.gif", "clips.webp")]
    best = Verdict.of(result, Run.all(result)).best
    plans = {one.label: one.plan for one in contenders}
    chosen = best.name if best is not None and best.name in plans else fastest(result, plans)
    if chosen:
        about = [{key: one[key] for key in ("label", "method", "speedup", "psnr")} for one in result["runs"]]
        seen = tuple(one.label for one in task.inputs[:4])
        plan, guidance = plans[chosen], task.settings.get("guidance_scale")
        Record(model, plan.method, task.steps, guidance, seen, tried=about, chosen=chosen).save(out, plan)
    if as_json:
        print_json(result)
    show(result, files, err if as_json else Console(highlight=False))


def fastest(result: dict[str, Any], plans: Mapping[str, Any]) -> str:
    """The label of the fastest method, where none keeps the pictures; "" if there is none."""
    caches = [run for run in result["runs"] if run["label"] in plans and run["method"] not in ("none", "fewer-steps")]
    return max(caches, key=lambda run: run["speedup"])["label"] if caches else ""


def lineup(task: Task, others: list[Input], names: list[str], quick: bool) -> tuple[list[Contender], list[dict[str, str]]]:
    """These methods, calibrated where they can be; and ``{"method", "why"}`` for each that does not apply."""
    contenders, skipped = [], []
    for name in names:
        entry = omnicache.methods()[name]
        if name == "fewer-steps":
            contenders += [Contender(f"{name} {ratio:g}", entry.plan(ratio=ratio)) for ratio in (0.5, 0.36, 0.24, 0.16)]
            continue
        if entry.slow_to_calibrate and (quick or task.frames > 1):
            why = f"Its calibration takes longer than all of this demo; make a plan with: omnicache calibrate {task.name} -m {name}"
            skipped.append({"method": name, "why": why})
            continue
        try:
            method: Any = name
            if entry.calibrate is not None:
                few = {"probes": 1} if quick and name in ("omnicache-trajectory", "omnicache-optimal") else {}
                asked = [one.call for one in others]
                method = omnicache.calibrate(task.pipe, asked, name, progress=False, **few, **task.settings)
            with omnicache.cache(task.pipe, method) as run:
                contenders.append(Contender(name, run.plan))
        except OmniCacheError as no:
            skipped.append({"method": name, "why": str(no)})
    return contenders, skipped


def show(result: dict[str, Any], files: list[Path], console: Console) -> None:
    """The table on the terminal."""
    base = result["baseline"]
    guidance = f"guidance {result['guidance']:g}, " if result["guidance"] is not None else ""
    console.print(
        f"[bold]{result['model']}[/bold]: {result['images']} {result['unit']}s, {result['steps']} steps, {guidance}"
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
    console.print(f"Written: {'  '.join(map(str, files))}")
