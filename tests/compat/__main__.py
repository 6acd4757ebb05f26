"""Writes the compatibility table by running everything: ``python -m tests.compat run``, then ``table``."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import diffusers
import torch
import typer
from rich.console import Console
from rich.progress import track
from tests.compat import denoisers as _entries  # noqa: F401  (fills the table)
from tests.compat.checks import Answer, ask
from tests.compat.report import page
from tests.compat.tiny import DENOISERS

import omnicache

app = typer.Typer(add_completion=False, no_args_is_help=True)
console = Console()
RESULTS = Path("benchmarks/results/compatibility.jsonl")
PAGE = Path("docs/compatibility.md")


def answered(path: Path) -> dict[str, dict[str, Any]]:
    """What a file holds already, the newest answer of each class."""
    lines = path.read_text().splitlines() if path.exists() else []
    return {row["name"]: row for row in map(json.loads, lines)}


def one(name: str) -> dict[str, Any]:
    """The answer about one class; a class that fails in itself is told from one that OmniCache breaks."""
    began = time.perf_counter()
    try:
        answer = ask(name, DENOISERS[name])
    except Exception as problem:
        answer = Answer(notes=[f"{type(problem).__name__}: {problem}"])
    return {
        "name": name,
        "good": answer.good,
        **answer.to_json(),
        "seconds": round(time.perf_counter() - began, 1),
        "versions": [omnicache.__version__, diffusers.__version__, torch.__version__],
    }


@app.command()
def denoiser(names: Annotated[list[str], typer.Argument(help="Classes of diffusers.")]) -> None:
    """Ask about some classes and print the answers."""
    for name in names:
        row = one(name)
        console.print(f"{name}: {'good' if row['good'] else 'NOT GOOD'}", json.dumps(row, indent=1), soft_wrap=True)


@app.command()
def run(
    shard: Annotated[str, typer.Option(help="Which part of how many, as in 1/4.")] = "1/1",
    out: Annotated[Path, typer.Option(help="One line of JSON for each class; classes in it are not run again.")] = RESULTS,
    again: Annotated[bool, typer.Option(help="Run classes that were answered already, too.")] = False,
) -> None:
    """Ask about every class."""
    part, parts = map(int, shard.split("/"))
    names = sorted(name for name, tiny in DENOISERS.items() if tiny.known(name))
    done = {} if again else answered(out)
    todo = [n for i, n in enumerate(names) if i % parts == part - 1 and n not in done]
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("a") as file:
        for name in track(todo, "classes", console=console):
            row = one(name)
            file.write(json.dumps(row) + "\n")
            file.flush()
            if not row["good"]:
                console.print(f"{name}: {'; '.join(row['notes']) or row}")
    typer.echo(f"{sum(r['good'] for r in answered(out).values())} of {len(answered(out))} classes are good.")


@app.command()
def table(
    results: Annotated[Path, typer.Option(help="What `run` wrote.")] = RESULTS,
    pipelines: Annotated[Path, typer.Option(help="What tests.compat.upstream wrote, if it was run.")] = Path(
        "benchmarks/results/compatibility-pipelines.jsonl"
    ),
    out: Annotated[Path, typer.Option(help="The page.")] = PAGE,
) -> None:
    """Write the page from the results."""
    out.write_text(page(list(answered(results).values()), list(answered(pipelines).values())))
    typer.echo(f"Wrote {out}.")


if __name__ == "__main__":
    torch.set_num_threads(1)
    app()
