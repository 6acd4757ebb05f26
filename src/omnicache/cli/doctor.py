from __future__ import annotations

import shlex
import warnings
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

import omnicache
from omnicache.cli.asking import draw, inputs_of, settings_of
from omnicache.cli.common import load, print_json, table_of, usual
from omnicache.cli.examination import examined, show
from omnicache.cli.options import AsJson, MethodOptions, Pipe, RunGuidance
from omnicache.errors import FAILURES, OmniCacheError, failed
from omnicache.integrations.pipelines import as_call, denoisers, with_scheduler
from omnicache.models import discover
from omnicache.runtime.trace import Trace

KINDS = ("stack", "block", "attention", "cross_attention", "mlp")


def doctor(
    pipe: Pipe,
    text: Annotated[str | None, typer.Option("--input", "-i", help="Prompt, or class by number or name, for the trial.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of the trial: 12; with -m those of the model or plan.")] = None,
    method: Annotated[
        str | None, typer.Option("--method", "-m", help="A method or plan file to look at closely: why not faster, why wrong?")
    ] = None,
    option: MethodOptions = [],  # noqa: B006
    guidance: RunGuidance = None,
    as_json: AsJson = False,
) -> None:
    """Say what was found in a pipeline and what each method would reuse; or why one method is not faster, or looks wrong."""
    loaded = load(pipe)
    if method is not None:
        found = examined(pipe, loaded, method, option, text, steps, guidance)
        print_json(found) if as_json else show(found)
        return
    if option:
        raise OmniCacheError("-o gives an option of a method; say which: -m taylorseer -o interval=4.")
    steps = 12 if steps is None else steps
    model = discover(denoisers(loaded)[0])
    call = settings_of(loaded, steps, guidance, usual(pipe)) | as_call(
        loaded, inputs_of(loaded, [] if text is None else [text], usual=usual(pipe))[0], 0
    )
    draw(loaded, call)  # what fails without a cache is no method's fault
    rows: list[dict[str, Any]] = []
    branches: list[str] = []
    for name, entry in omnicache.methods().items():
        if name in ("none", "fewer-steps"):
            continue
        if entry.needs_calibration:
            command = shlex.join(("omnicache", "calibrate", pipe, "-m", name))
            rows.append({"method": name, "computed": None, "why": f"calibrate it first: {command}"})
            continue
        try:
            trace = _trial(loaded, name, call)
        except FAILURES as no:
            rows.append({"method": name, "computed": None, "why": failed(no)})
            continue
        branches = [str(b) for b in trace.branches()]
        rows.append({"method": name, "computed": trace.computed, "why": " ".join(trace.notes) or None})
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
    with torch.no_grad(), warnings.catch_warnings(), omnicache.cache(pipe, method) as run:
        warnings.simplefilter("ignore")
        pipe(**call)
        return run.trace


def _show(result: dict[str, Any]) -> None:
    console = Console(highlight=False)
    sites = ", ".join(f"{n} {k.replace('_', '-')}" for k, n in result["sites"].items() if n)
    console.print(
        f"[bold]{result['denoiser']}[/bold] ({result['family']}), {result['scheduler'] or 'no scheduler'}: {sites or 'no site'}"
    )
    calls = len(result["branches"])
    console.print(f"{calls} call{'' if calls == 1 else 's'} of the denoiser a step; guidance in one batch counts as one.")
    console.print(f"{result['trial_steps']} steps each: # computed, . reused, o in part, ? reused and checked, - not run.\n")
    rows = [(row["method"], row["computed"] or "-", row["why"] or "") for row in result["methods"]]
    console.print(table_of(console, ("method", "steps", "remarks"), rows, widest={"steps": console.width // 3}))
