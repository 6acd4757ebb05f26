from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

import omnicache
from omnicache.cli.asking import settings_for
from omnicache.cli.common import load, print_json, table_of
from omnicache.cli.options import AsJson, Pipe, RunGuidance
from omnicache.errors import OmniCacheError
from omnicache.plan import Plan


def check(
    pipe: Pipe,
    plan: Annotated[Path, typer.Argument(help="A plan file.")],
    steps: Annotated[int | None, typer.Option(min=1, help="Sampler steps of the run; the plan's own if not given.")] = None,
    guidance: RunGuidance = None,
    as_json: AsJson = False,
) -> None:
    """Say of all that a plan was made for whether it is so here: fine, measured elsewhere, or refused. Runs nothing."""
    loaded, made = load(pipe), Plan.load(plan)
    found = omnicache.check(loaded, made, **settings_for(pipe, loaded, made, steps, guidance))
    if as_json:
        told = [{**asdict(d), "then": str(d.then), "now": str(d.now)} for d in found]
        print_json({"pipe": pipe, "plan": str(plan), "differences": told})
    else:
        console = Console(highlight=False)
        rows = [(d.what, str(d.then), "" if d.now == d.then else str(d.now), d.verdict) for d in found]
        console.print(table_of(console, ("made for", "then", "here", "verdict"), rows))
    refused = [d for d in found if d.verdict == "refused"]
    if refused:
        raise OmniCacheError(" ".join(f"{d.what}: {d.why}" for d in refused))
