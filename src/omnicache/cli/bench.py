from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from omnicache import zoo
from omnicache.cli.bench_peers import bench_peers
from omnicache.cli.common import chosen, err, load, print_json
from omnicache.cli.measured import measured
from omnicache.cli.options import AsJson, Guidance
from omnicache.cli.record import Record
from omnicache.cli.waiting import waiting
from omnicache.errors import OmniCacheError
from omnicache.guards import human_bytes
from omnicache.measure import Task
from omnicache.measure.bench import Bench
from omnicache.measure.bench.size import FULL, QUICK
from omnicache.report import write_bench
from omnicache.report.verdict import ALIKE

WORDS = {"slower": "slower", "beyond": "beyond"}
"""In place of what a setting is ahead: slower than without a cache, faster than any fewer steps that were measured."""


def bench(
    model: Annotated[str, typer.Option(help="A model of the zoo.")] = "emoji",
    methods: Annotated[str, typer.Option(help='Names with commas between them, or "all".')] = "all",
    out: Annotated[Path, typer.Option(help="Folder for index.html and bench.json, and for going on later.")] = Path(
        "omnicache-bench"
    ),
    as_json: AsJson = False,
    quick: Annotated[bool, typer.Option("--quick", help="Few samples and settings: a first look.")] = False,
    steps: Annotated[int, typer.Option(min=5, help="Sampler steps.")] = 20,
    guidance: Guidance = None,
    samples: Annotated[int | None, typer.Option(min=4, help="Samples of what is looked at closely (256; clips 64).")] = None,
    minutes: Annotated[float | None, typer.Option(min=0.1, help="Its limit; what does not fit is left out and named.")] = None,
    peers: Annotated[bool, typer.Option("--peers", help="The tuned plan against cache-dit, diffusers and others instead.")] = False,
) -> None:
    """Compare methods, each at several settings, with one another and with fewer steps: speed, quality, memory.

    With --peers: what omnicache.tune makes, against other packages' caches and solvers of higher order; --methods then names
    contenders.
    """
    shown = [name for name in zoo.names() if zoo.labels(name)]
    if model not in (*shown, *zoo.IN_THE_CLONE):
        raise OmniCacheError(
            f"The comparison needs a model with a judge of its pictures, one of the zoo ({', '.join(shown) or 'none'}); {model!r} "
            f"is none. For a pipeline of your own: omnicache doctor {model}, then omnicache run {model} -m taylorseer."
        )
    if peers:
        bench_peers(model, methods, out, as_json, quick, steps, guidance, samples, minutes)
        return
    names = chosen(methods)
    size = (QUICK if quick else FULL)["clip" if zoo.frames(model) > 1 else "picture"]
    if samples is not None:
        size = replace(size, samples=samples, first=min(size.first, samples) if size.closely else samples)
    if minutes is not None:
        size = replace(size, minutes=minutes)
    task = Task(model, load(model), size.samples, steps, guidance)
    with waiting(err) as tell:
        work = Bench(task, out / "work", names, size, tell)
        result = measured(work.run, out / "bench.json")
    page = write_bench(result, pictures_of(work, result), out)
    if (best := best_of(result)) is not None:
        about = [{**{k: row[k] for k in ("label", "method")}, **figures_of(row)} for row in result["rows"]]
        plan = next(work.plans.of(one.setting, one.key) for one in work.found if one.setting.label == best)
        seen = tuple(one.label for one in task.inputs[:4])
        Record(model, plan.method, steps, guidance, seen, tried=about, chosen=best).save(out, plan)
    if as_json:
        print_json(result)
    show(result, [page, out / "bench.json"], err if as_json else Console(highlight=False))


def best_of(result: dict[str, Any]) -> str | None:
    """The label of the fastest setting that is hard to tell apart, of those that do not lose to fewer steps; else of the likest."""
    rows = [row for row in result["rows"] if row["verdict"] not in ("reference", "worse", "slower")]
    like = [row for row in rows if row["psnr"]["mean"] >= ALIKE]
    if like:
        return max(like, key=lambda row: row["speedup"]["median"])["label"]
    return max(rows, key=lambda row: row["psnr"]["mean"])["label"] if rows else None


def figures_of(row: dict[str, Any]) -> dict[str, float]:
    """What a chart of settings needs."""
    return {"speedup": row["speedup"]["median"], "psnr": row["psnr"]["mean"]}


def pictures_of(work: Bench, result: dict[str, Any]) -> dict[str, Any]:
    """The first samples, uncached and of each method's best, by label."""
    best = {one["best"] for one in result["methods"]}
    made = {one.setting.label: work.pictures(one) for one in work.found if one.setting.label in best}
    count = min((len(one) for one in made.values() if one is not None), default=0)
    return {"uncached": work.quality.uncached[:count], **{label: one[:count] for label, one in made.items() if one is not None}}


def show(result: dict[str, Any], files: list[Path], console: Console) -> None:
    """The table on the terminal: each method's best, those that lose to fewer steps first. The lead is that over fewer steps at the
    same speed."""
    rows = {row["label"]: row for row in result["rows"]}
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("best setting", "speedup", "work", "PSNR", "lead", "right", "kept"):
        table.add_column(column, justify="left" if column == "best setting" else "right", no_wrap=True)
    order = {"slower": 0, "worse": 1, "even": 2, "better": 3, "beyond": 3, "reference": 4}
    for one in sorted(result["methods"], key=lambda m: (order[m["verdict"]], -rows[m["best"]]["speedup"]["median"])):
        row = rows[one["best"]]
        ahead = row["lead"]["mean"] if row["lead"] and row["verdict"] != "reference" else None
        table.add_row(
            row["label"],
            f"{row['speedup']['median']:.2f}x",
            f"{row['compute_fraction']:.0%}",
            "same" if row["psnr"]["mean"] > 99 else f"{row['psnr']['mean']:.1f} dB",
            WORDS.get(row["verdict"], "" if ahead is None else f"{ahead:+.1f} dB"),
            f"{row['recognised']['mean']:.0%}",
            human_bytes(row["cache_bytes"]),
        )
    console.print(table)
    for skip in result["skipped"]:
        console.print(f"{skip['method']}: not shown. {skip['why']}")
    if result["left_out"]:
        console.print(f"No time was left for: {', '.join(result['left_out'])}. The same command with more --minutes goes on.")
    console.print(f"Written: {'  '.join(map(str, files))}")
