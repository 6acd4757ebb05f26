from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

import omnicache
from omnicache.cli.asking import inputs_of, settings_of, subject_of
from omnicache.cli.common import err, load, print_json, usual
from omnicache.cli.measured import resumable
from omnicache.cli.options import AsJson, Guidance, Inputs, Pipe, PlanFile, PlanSteps
from omnicache.guards import human_bytes
from omnicache.words import some


def tune(
    pipe: Pipe,
    speedup: Annotated[float | None, typer.Option(help="How many times as fast; the likest plan that is so fast.")] = None,
    psnr: Annotated[float | None, typer.Option(help="dB to the uncached pictures; the fastest plan that is so like.")] = None,
    memory: Annotated[str | None, typer.Option(help="The most that may be kept: '200 MB'.")] = None,
    methods: Annotated[str, typer.Option(help="auto, all, or names with commas between them.")] = "auto",
    inputs: Inputs = [],  # noqa: B006
    count: Annotated[int, typer.Option(min=2, help="Inputs, where none are given.")] = 16,
    steps: PlanSteps = 50,
    guidance: Guidance = None,
    budget: Annotated[str, typer.Option(help="No other method or composition is begun after so much measuring.")] = "10 min",
    out: PlanFile = Path("omnicache.plan.json"),
    as_json: AsJson = False,
) -> None:
    """Find the plan that reaches a goal, and save it. What was measured is kept: an interrupted search goes on where it was."""
    loaded = load(pipe)
    call = settings_of(loaded, steps, guidance, usual(pipe))
    if subject_of(loaded, usual(pipe)) == "prompt" and not inputs:
        raise omnicache.OmniCacheError("Say what to try it on: -i 'a red fox' -i 'a lake at night' … (sixteen prompts do).")
    asked = inputs_of(loaded, inputs, count=count, usual=usual(pipe))
    goal: dict[str, Any] = {"speedup": speedup, "psnr": psnr, "memory": memory}
    with resumable():
        plan = omnicache.tune(loaded, asked, **goal, methods=methods, budget=budget, progress=not as_json, **call)
    plan.save(out)
    told = plan.measured["tuned"]
    if as_json:
        print_json({"model": pipe, "plan": str(out), **told})
        return
    by = f"{told['inputs']} inputs" if told["inputs"] > 1 else "one input"
    table = Table(f"on the {by} it was chosen by", "speedup", "PSNR", "kept", box=None)
    for one in told["tried"]:
        mark = "bold" if one["label"] == told["chosen"]["label"] else None
        figures = f"{one['speedup']:.2f}x", f"{one['psnr']:.1f} dB", human_bytes(one["cache_bytes"])
        table.add_row(one["label"], *figures, style=mark)
    err.print(table)
    for why in dict.fromkeys(told["refused"].values()):
        names = [name for name, reason in told["refused"].items() if reason == why]
        err.print(f"Not tried: {some(names)}. {why}", style="dim", soft_wrap=True, markup=False)
    if told["inputs"] < 2:
        err.print("By one input nothing is known of how far others are off: give four or more.", soft_wrap=True)
    if told["left_out"]:
        err.print(
            f"There was no time for {some(told['left_out'])}: with a longer --budget the same command goes on from here.",
            soft_wrap=True,
        )
    held, fast, like = (told["held_out"][part] for part in ("inputs", "speedup", "psnr"))
    err.print(
        f"{told['chosen']['label']}: on {held} input{'s' * (held > 1)} that it was not chosen by "
        f"{fast['median']:.2f} times as fast ({fast['low']:.2f} to {fast['high']:.2f}), and {like['mean']:.1f} dB "
        f"({like['low']:.1f} to {like['high']:.1f}) like. Saved {out}",
        soft_wrap=True,
    )
