from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

import omnicache
from omnicache.cli.asking import inputs_of, settings_of, subject_of
from omnicache.cli.common import err, load, print_json, read_options, say, usual
from omnicache.cli.options import AsJson, Guidance, Inputs, Pipe, PlanFile, PlanSteps
from omnicache.report import write_calibration
from omnicache.report.calibration import picture_data


def calibrate(
    pipe: Pipe,
    method: Annotated[str, typer.Option("--method", "-m", help="A method that can be calibrated.")] = "omnicache-trajectory",
    option: Annotated[list[str], typer.Option("--option", "-o", help="An option of the calibration, name=value.")] = [],  # noqa: B006
    inputs: Inputs = [],  # noqa: B006
    steps: PlanSteps = 50,
    guidance: Guidance = None,
    out: PlanFile = Path("omnicache.plan.json"),
    as_json: AsJson = False,
) -> None:
    """Measure uncached runs and save a plan for this pipeline and step count."""
    loaded = load(pipe)
    call = settings_of(loaded, steps, guidance, usual(pipe))
    if subject_of(loaded, usual(pipe)) == "prompt" and not inputs:
        raise omnicache.OmniCacheError("Say what to calibrate on: -i 'a red fox' -i 'a lake at night' … (eight prompts do).")
    asked = inputs_of(loaded, inputs, count=8, usual=usual(pipe))
    names = {v: k for k, v in (getattr(loaded, "labels", None) or {}).items()}
    chosen = list(inputs) or [str(names.get(one["class_labels"][0], one)) if one else f"seed {i}" for i, one in enumerate(asked)]
    plan = omnicache.calibrate(loaded, asked, method, progress=not as_json, **call, **read_options(option))
    plan.save(out)
    picture = None
    if "points" in plan.measured or "rows" in plan.measured:
        picture = out.with_suffix(".png")
        write_calibration(picture_data(plan, chosen), picture)
    if as_json:
        print_json({"model": pipe, "method": method, "plan": str(out), "picture": str(picture) if picture else None})
        return
    if "schedule" in plan.measured:
        err.print(
            f"{plan.measured['schedule']}  {plan.measured['reuses']} of {len(plan.measured['schedule'])} steps reused",
            soft_wrap=True,
        )
    if "rows" in plan.measured:
        for row in plan.measured["rows"]:
            err.print(row, soft_wrap=True)
        err.print(
            f"{plan.measured['speedup']:.2f} times as fast where {plan.measured['wanted_speedup']:g} was asked for; "
            f"the final latent is off by {plan.measured['error']:.2%}"
        )
    elif {"speedup", "error"} <= plan.measured.keys():
        err.print(f"{plan.measured['speedup']:.2f} times as fast; the final latent is off by {plan.measured['error']:.2%}")
    say(f"saved {out}" + (f" and {picture}" if picture else ""))
    say("Use it: " + shlex.join(("omnicache", "run", pipe, "-m", str(out))))
