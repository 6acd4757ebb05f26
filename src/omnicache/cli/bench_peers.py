from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from omnicache import zoo
from omnicache.cli.common import err, print_json
from omnicache.cli.measured import measured
from omnicache.cli.waiting import waiting
from omnicache.measure.peers import CONTENDERS, Peers
from omnicache.measure.peers.size import FULL, QUICK
from omnicache.measure.peers.work import modules_of
from omnicache.report import write_peers
from omnicache.report.peers import BAD, FILE


def bench_peers(
    model: str,
    contenders: str,
    out: Path,
    as_json: bool,
    quick: bool,
    steps: int,
    guidance: float | None,
    samples: int | None,
    minutes: float | None,
) -> None:
    """The tuned plan against other packages, other caches and fewer steps: ``omnicache bench --peers``."""
    size = (QUICK if quick else FULL)["clip" if zoo.frames(model) > 1 else "picture"]
    if samples is not None:
        size = replace(size, samples=samples)
    if minutes is not None:
        size = replace(size, minutes=minutes)
    names = list(CONTENDERS) if contenders == "all" else [name.strip() for name in contenders.split(",") if name.strip()]
    modules = modules_of(names)
    with waiting(err) as tell:
        work = Peers(model, out / "work", size, steps, guidance, contenders=modules, tell=tell)
        result = measured(work.run, out / FILE)
    page = write_peers(result, out)
    if as_json:
        print_json(result)
    show(result, [page, out / FILE], err if as_json else Console(highlight=False))


def show(result: dict[str, Any], files: list[Path], console: Console) -> None:
    """The verdicts, worst first, and for each goal what was chosen."""
    if result["quick"]:
        console.print(f"A quick look: {result['samples']} held-out {result['unit']}s, few settings of each.", style="yellow")
    for one in result["verdicts"]:
        console.print(one["sentence"], style="yellow" if one["outcome"] in BAD else "green", markup=False)
    for goal in result["goals"]:
        table = Table(box=None, pad_edge=False, header_style="bold", title=f"{goal:g} dB", title_justify="left", title_style="bold")
        for column in ("contender and setting", "speedup", "95 %", "PSNR"):
            table.add_column(
                column, justify="left" if column.startswith("contender") else "right", no_wrap=column != "contender and setting"
            )
        mine = [one for one in result["chosen"] if one["goal"] == goal]
        for one in sorted(mine, key=lambda o: -o["held"]["speedup"]["median"] if o["held"] else 0):
            held = one["held"]
            name = Text(f"{one['contender']}\n").append(_without(one) if held is None else one["label"], style="dim")
            if held is None:
                table.add_row(name, "–", "", "")
                continue
            fast = held["speedup"]
            span, like = f"{fast['low']:.2f}–{fast['high']:.2f}", f"{held['psnr']['mean']:.1f} dB"
            table.add_row(name, f"{fast['median']:.2f}x", span, like)
        console.print()
        console.print(table)
    console.print()
    for one in result["contenders"]:
        if one["why"] is not None:
            console.print(f"{one['name']}: not compared. {one['why']}", markup=False)
        elif one["left_out"]:
            console.print(
                f"{one['name']}: no time was left for {one['left_out']} of its settings; more --minutes goes on.", markup=False
            )
    console.print(f"Written: {'  '.join(map(str, files))}")


def _without(one: dict[str, Any]) -> str:
    if one["label"] is not None:
        return f"{one['label']}: not measured on held-out inputs. {one['why']}"
    near = one["nearest"]
    return one["why"] or (
        "none is faster than uncached"
        if near is None
        else f"none reaches it; the nearest is {near['label']}: {near['speedup']['median']:.2f}x at {near['psnr']['mean']:.1f} dB"
    )
