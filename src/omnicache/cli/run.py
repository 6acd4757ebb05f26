from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

import omnicache
from omnicache.cli.asking import draw, inputs_of, settings_of
from omnicache.cli.common import err, load, print_json, read_options, usual
from omnicache.cli.options import AsJson, Guidance, Inputs, MethodOptions, Pipe
from omnicache.cli.record import Record
from omnicache.cli.saving import save
from omnicache.integrations.pipelines import as_call


def run(
    pipe: Pipe,
    method: Annotated[str, typer.Option("--method", "-m", help="A method's name or a plan file.")] = "none",
    option: MethodOptions = [],  # noqa: B006
    inputs: Inputs = [],  # noqa: B006
    steps: Annotated[int, typer.Option(min=1, help="Sampler steps.")] = 50,
    guidance: Guidance = None,
    seed: Annotated[int, typer.Option(help="Of the first picture; the next ones count on.")] = 0,
    memory: Annotated[str | None, typer.Option(help='The most that the cache may hold: "200 MB", "1.5 GiB".')] = None,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("omnicache-run"),
    as_json: AsJson = False,
) -> None:
    """Draw pictures with a method and say what was computed, kept and saved."""
    loaded = load(pipe)
    call = settings_of(loaded, steps, guidance, usual(pipe))
    asked = inputs_of(loaded, inputs, usual=usual(pipe))
    names = inputs or [str(next(iter(asked[0].values()), "unconditional")).strip("[]")]
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    guards = omnicache.Guards(memory=memory) if memory is not None else None
    with omnicache.cache(loaded, method, guards=guards, **read_options(option)) as running:
        plan = running.plan
        for i, one in enumerate(asked):
            began = time.perf_counter()
            path, note = save(loaded, draw(loaded, {**call, **as_call(loaded, one, seed + i)}), out / f"{i:03d}")
            trace = running.trace
            seconds = time.perf_counter() - began
            rows.append({"input": names[i], "path": str(path), "seconds": round(seconds, 3)})
            rows[-1] |= {
                "computed": trace.computed,
                "cache_bytes": trace.peak_bytes,
                "notes": [*([trace.thrift] if trace.thrift else []), *trace.notes, *([note] if note else [])],
            }
            if not as_json:
                said = f"{path}  {seconds:.2f} s" + (f"\n{note}" if note else "")
                err.print(f"{said}\n{running}", soft_wrap=True, markup=False)
    Record(pipe, method, steps, guidance, tuple(inputs), seed, images=rows).save(out, plan)
    if as_json:
        print_json({"model": pipe, "method": method, "steps": steps, "images": rows})
    else:
        err.print(f"All about it, on one page: omnicache report {out}", soft_wrap=True, markup=False)
