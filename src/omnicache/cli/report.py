from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from omnicache import zoo
from omnicache.api import enable
from omnicache.cli.asking import APART, asked_as, draw, inputs_of, settings_of
from omnicache.cli.common import err, load, print_json, read_options, usual
from omnicache.cli.options import AsJson
from omnicache.cli.record import FILE, PLAN, Record, recorded
from omnicache.errors import OmniCacheError
from omnicache.fingerprint import fingerprint
from omnicache.integrations.pipelines import as_call, denoisers
from omnicache.measure.comparison import finite, rounded
from omnicache.measure.diagnosis import diagnose
from omnicache.measure.study import study
from omnicache.plan import Plan
from omnicache.report.peers import FILE as PEERS
from omnicache.report.peers import write_peers
from omnicache.report.report import PAIRS, setting, tried
from omnicache.report.study_page import About, write_study

MOST = 4
"""Inputs that are drawn."""


def report(
    run: Annotated[
        Path, typer.Argument(help="A folder that omnicache run, demo or bench wrote, a plan file (or its folder), or peers.json.")
    ],
    method: Annotated[str | None, typer.Option("--method", "-m", help="Another method or plan file, on the same inputs.")] = None,
    option: Annotated[list[str], typer.Option("--option", "-o", help="An option of that method, name=value.")] = [],  # noqa: B006
    model: Annotated[str | None, typer.Option(help="The model of a plan file: of the zoo, or a diffusers folder.")] = None,
    inputs: Annotated[list[str], typer.Option("--input", "-i", help="Other inputs: prompts, classes; may repeat.")] = [],  # noqa: B006
    steps: Annotated[int | None, typer.Option(min=2, help="Other than those of the run or plan.")] = None,
    pairs: Annotated[int, typer.Option(min=1, help="Timed calls, without and with the cache by turns.")] = PAIRS,
    out: Annotated[Path | None, typer.Option(help="Folder for report.html; the run's own if not given.")] = None,
    as_json: AsJson = False,
) -> None:
    """Draw the inputs of a run without and with its plan, and write one page: how it looks, what is gained, where the error is."""
    compared = _peers(run)
    if compared is not None:
        if method or option or model or inputs or steps or pairs != PAIRS:
            raise OmniCacheError(f"{str(run)!r} is a comparison with peers: nothing is drawn again, so only --out can be given.")
        try:
            page = write_peers(compared, out or (run if run.is_dir() else run.parent))
            said = [one["sentence"] for one in compared["verdicts"]]
        except KeyError as missing:
            raise OmniCacheError(
                f"{str(run)!r} is not the whole result of omnicache bench --peers: {missing} is missing. Run that command again; "
                "it goes on from what it has measured."
            ) from None
        _tell(page, said, {"page": str(page), "verdicts": compared["verdicts"]}, as_json)
        return
    record, plan = _of(run, model)
    folder = out if out is not None else run if run.is_dir() else run.parent
    loaded = load(record.model)
    if method is not None:
        running = enable(loaded, method, **read_options(option))
        plan = running.plan
        running.disable()
    elif option:
        raise OmniCacheError("-o gives an option of a method; say which: -m taylorseer -o interval=4.")
    call = settings_of(loaded, record.steps if steps is None else steps, record.guidance, usual(record.model))
    names, asked = _asked(loaded, record, inputs)
    draw(loaded, call | as_call(loaded, asked[0], record.seed))  # what fails without a cache is not the plan's fault
    say = (lambda what: None) if as_json else (lambda what: err.print(what, markup=False))
    words = asked_as(record.model, method or str(run / PLAN if run.is_dir() else run), option, steps)
    found = diagnose(loaded, study(loaded, plan, asked, call, labels=names, seed=record.seed, pairs=pairs, done=say), words)
    given = {"-m": method, "--model": model, "--steps": steps, "--pairs": pairs if pairs != PAIRS else None, "--out": out}
    asked_for = [(name, str(value)) for name, value in given.items() if value is not None]
    asked_for += [("-o", one) for one in option] + [("-i", one) for one in inputs]
    again = shlex.join(["omnicache", "report", str(run), *(part for pair in asked_for for part in pair)])
    command = f"{record.command}\n{again}" if record.command else again
    besides = tried(plan)
    if record.tried:
        whose = f"the pictures of {' '.join(record.command.split()[:2])}"
        besides = {"tried": record.tried, "chosen": record.chosen if method is None else "", "whose": whose}
    page = write_study(found, About(record.model, setting(found, call), command, **besides), folder)
    measured = found.study
    figures = {
        "speedup": measured.speed["speedup"],
        "psnr": measured.psnr,
        "work": measured.work,
        "cache_bytes": measured.cache_bytes,
    }
    told = {"why_not_faster": list(found.speed), "why_not_alike": list(found.likeness)}
    shown = {"model": record.model, "method": plan.method, "page": str(page), **figures, **told}
    _tell(page, [found.speed[0], *found.likeness[:1]], finite(rounded(shown)), as_json)


def _tell(page: Path, sentences: Sequence[str], shown: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(shown)
        return
    for sentence in sentences:
        err.print(sentence, soft_wrap=True, markup=False)
    err.print(f"Written: {page}", soft_wrap=True)


def _peers(run: Path) -> dict[str, Any] | None:
    """What ``omnicache bench --peers`` has written, if that is what it is; in a folder of a run, too, that is its record."""
    path = run / PEERS if run.is_dir() and not (run / FILE).exists() else run
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except ValueError:  # whoever reads it as a plan says what is wrong
        return None
    return found if isinstance(found, dict) and {"duels", "verdicts"} <= set(found) else None


def _of(run: Path, model: str | None) -> tuple[Record, Plan]:
    """What to draw again."""
    if run.is_dir():
        plans = list(run.glob("*.plan.json"))
        if (run / FILE).exists() or len(plans) != 1:
            return recorded(run)
        run = plans[0]
    plan = Plan.load(run)
    name = model or _model_of(plan, run)
    known = plan.made_for.get("num_inference_steps", usual(name).get("num_inference_steps", 50))
    return Record(name, plan.method, int(known), plan.made_for.get("guidance_scale"), seed=APART, command=""), plan


def _model_of(plan: Plan, path: Path) -> str:
    """The model of the zoo that a plan was made for, by its denoiser's class and parameters.

    Raises:
        OmniCacheError: there is none.
    """
    wanted = {key: plan.made_for.get(key) for key in ("model", "parameters")}
    for name in zoo.names() if wanted["model"] is not None else ():
        index = (zoo.path(name) / "model_index.json").read_text(encoding="utf-8")
        if f'"{wanted["model"]}"' in index and fingerprint(denoisers(zoo.load(name))[0]) == wanted:
            return name
    raise OmniCacheError(
        f"{str(path)!r} does not say which pipeline it is for, and no model of the zoo fits it. Say it: "
        f"omnicache report {path} --model emoji, or --model with a diffusers folder."
    )


def _asked(pipe: Any, record: Record, others: list[str]) -> tuple[list[str], list[dict[str, Any]]]:
    """The inputs, and their names; of a plan file such as nothing was fitted on, as far as the seeds make them so."""
    wanted = others or list(record.inputs)
    if not wanted and record.images:  # the run was asked nothing: what is usual
        return [str(one["input"]) for one in record.images[:1]], inputs_of(pipe, [], usual=usual(record.model))
    known = zoo.inputs(record.model) if record.model in zoo.names() else {}
    if known and all(name in known for name in wanted):
        gap = max(1, len(known) // MOST)
        names = wanted[:MOST] or list(known)[gap // 2 :: gap][:MOST]
        return names, [known[name] for name in names]
    return wanted[:MOST], inputs_of(pipe, wanted, count=MOST, usual=usual(record.model))[:MOST]
