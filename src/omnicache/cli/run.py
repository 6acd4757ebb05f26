from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import Annotated

import typer

import omnicache
from omnicache.api import plan_of
from omnicache.cli.asking import asked_as, draw, inputs_of, settings_for
from omnicache.cli.common import load, plain_warnings, print_json, read_options, say, say_rest, usual
from omnicache.cli.options import AsJson, Inputs, MethodOptions, Pipe, RunGuidance
from omnicache.cli.record import PLAN, Record, pictures_of
from omnicache.cli.saving import save
from omnicache.fingerprint import kinds
from omnicache.integrations.pipelines import as_call


def run(
    pipe: Pipe,
    method: Annotated[str, typer.Option("--method", "-m", help="A method's name or a plan file.")] = "none",
    option: MethodOptions = [],  # noqa: B006
    inputs: Inputs = [],  # noqa: B006
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Sampler steps. If not given, those of a plan file, else of a model of the zoo, else 50."),
    ] = None,
    guidance: RunGuidance = None,
    seed: Annotated[int, typer.Option(help="Of the first picture; the next ones count on.")] = 0,
    memory: Annotated[str | None, typer.Option(help='The most that the cache may hold: "200 MB", "1.5 GiB".')] = None,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("omnicache-run"),
    as_json: AsJson = False,
) -> None:
    """Draw pictures with a method and say what was computed, kept and saved."""
    loaded = load(pipe)
    guards = omnicache.Guards(memory=memory) if memory is not None else None
    plan = plan_of(method, guards, kinds(loaded), **read_options(option))
    call = settings_for(pipe, loaded, plan, steps, guidance)
    asked = inputs_of(loaded, inputs, usual=usual(pipe))
    names = inputs or [str(next(iter(asked[0].values()), "unconditional")).strip("[]")]
    out.mkdir(parents=True, exist_ok=True)
    limited = "" if memory is None else str(out / PLAN)  # the plan that is left here has the limit; no other command takes one
    words = asked_as(pipe, method, option, steps, guidance, limited)
    earlier, rows, warned = pictures_of(out), [], list[str]()
    with plain_warnings(warned.append), omnicache.cache(loaded, plan) as running:
        for i, one in enumerate(asked):
            began = time.perf_counter()
            path, note = save(loaded, draw(loaded, {**call, **as_call(loaded, one, seed + i)}), out / f"{i:03d}")
            trace = running.trace
            seconds = time.perf_counter() - began
            rows.append({"input": names[i], "path": str(path), "seconds": round(seconds, 3)})
            rows[-1] |= {
                "computed": trace.computed,
                "cache_bytes": trace.peak_bytes,
                "notes": [*trace.remarks, *([note] if note else [])],
            }
            told = running.told(words)
            if not as_json:
                say(f"{path}  {seconds:.2f} s" + (f"\n{note}" if note else "") + f"\n{told}")
            say_rest(warned, told)
    taken = call["num_inference_steps"]
    Record(pipe, method, taken, call.get("guidance_scale"), tuple(inputs), seed, images=rows).save(out, plan)
    left = earlier - {Path(row["path"]) for row in rows}
    for path in left:
        path.unlink(missing_ok=True)
    if as_json:
        print_json({"model": pipe, "method": method, "steps": taken, "images": rows})
        return
    if left:
        say(f"Removed, of the run that was here before: {', '.join(sorted(path.name for path in left))}")
    say(f"All about it, on one page: {shlex.join(('omnicache', 'report', str(out)))}")
