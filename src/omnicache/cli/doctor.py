from __future__ import annotations

import warnings
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

import omnicache
from omnicache.cli.asking import draw, inputs_of, settings_of
from omnicache.cli.common import load, print_json, usual
from omnicache.errors import OmniCacheError
from omnicache.integrations.pipelines import as_call, denoisers, with_scheduler
from omnicache.models import discover
from omnicache.runtime.trace import Trace

KINDS = ("stack", "block", "attention", "cross_attention", "mlp")


def doctor(
    pipe: Annotated[str, typer.Argument(help="A model of the zoo (emoji) or a diffusers folder.")],
    text: Annotated[
        str | None, typer.Option("--input", "-i", help="Prompt, or class by number or name, for a short trial.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the trial.")] = 12,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Say what was found in a pipeline: sites, guidance passes, what each method would reuse and why not."""
    loaded = load(pipe)
    model = discover(denoisers(loaded)[0])
    call = settings_of(loaded, steps, usual=usual(pipe)) | as_call(
        loaded, inputs_of(loaded, [] if text is None else [text], usual=usual(pipe))[0], 0
    )
    draw(loaded, call)  # what fails without a cache is no method's fault
    rows: list[dict[str, Any]] = []
    branches: list[str] = []
    for name, entry in omnicache.methods().items():
        if name in ("none", "fewer-steps"):
            continue
        if entry.needs_calibration:
            rows.append({"method": name, "computed": None, "why": "calibrate it first: omnicache calibrate " + pipe})
            continue
        try:
            trace = _trial(loaded, name, call)
        except OmniCacheError as no:
            rows.append({"method": name, "computed": None, "why": str(no)})
            continue
        branches = [str(b) for b in trace.branches()]
        rows.append({"method": name, "computed": trace.computed, "why": "; ".join(trace.notes) or None})
    result = {
        "denoiser": type(model.model).__name__,
        "family": model.family,
        "scheduler": type(loaded.scheduler).__name__ if with_scheduler(loaded) else None,
        "sites": {k: len(model.sites(k)) for k in KINDS},
        "branches": branches,
        "trial_steps": steps,
        "methods": rows,
    }
    print_json(result) if as_json else _show(result)


def _trial(pipe: Any, method: str, call: dict[str, Any]) -> Trace:
    generator = call.get("generator")
    if isinstance(generator, torch.Generator):
        call = {**call, "generator": torch.Generator().manual_seed(0)}
    with warnings.catch_warnings(), omnicache.cache(pipe, method) as run:
        warnings.simplefilter("ignore")
        draw(pipe, call)
        return run.trace


def _show(result: dict[str, Any]) -> None:
    console = Console(highlight=False)
    sites = ", ".join(f"{n} {k.replace('_', '-')}" for k, n in result["sites"].items() if n)
    console.print(
        f"[bold]{result['denoiser']}[/bold] ({result['family']}), {result['scheduler'] or 'no scheduler'}: {sites or 'no site'}"
    )
    calls = len(result["branches"])
    console.print(f"{calls} call(s) of the denoiser a step; guidance in one batch counts as one.")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("method", f"{result['trial_steps']} steps, # computed . reused", "remarks"):
        table.add_column(column, overflow="fold")
    for row in result["methods"]:
        table.add_row(row["method"], row["computed"] or "-", row["why"] or "")
    console.print(table)
