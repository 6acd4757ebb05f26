"""What ``omnicache doctor -m METHOD`` measures and says."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from omnicache import words
from omnicache.api import enable
from omnicache.cli.asking import APART, asked_as, draw, inputs_of, settings_for
from omnicache.cli.common import plain_warnings, read_options, say_rest, usual
from omnicache.integrations.pipelines import as_call
from omnicache.measure.comparison import finite, rounded
from omnicache.measure.diagnosis import diagnose
from omnicache.measure.study import study

PAIRS = 3


def examined(
    pipe: str, loaded: Any, method: str, option: list[str], text: str | None, steps: int | None, guidance: float | None
) -> dict[str, Any]:
    """Figures and sentences on a method, from a few runs without and with it, of two inputs that no plan was fitted on."""
    running = enable(loaded, method, **read_options(option))
    plan = running.plan
    running.disable()
    call = settings_for(pipe, loaded, plan, steps, guidance)
    asked = inputs_of(loaded, [] if text is None else [text], count=2, usual=usual(pipe))
    draw(loaded, call | as_call(loaded, asked[0], APART))  # what fails without a cache is no method's fault
    warned = list[str]()
    with plain_warnings(warned.append):
        found = study(loaded, plan, asked, call, seed=APART, pairs=PAIRS)
        told = diagnose(loaded, found, asked_as(pipe, method, option, steps, guidance))
    say_rest(warned, " ".join(told.speed))
    result = {
        "model": pipe,
        "method": plan.method,
        "options": words.plain(plan.options),
        "steps": call["num_inference_steps"],
        "computed": found.drawn[0].look.run.computed,
        "speedup": found.speed,
        "call": found.whole,
        "milliseconds": {mark: 1e3 * s for mark, s in found.seconds_each.items()},
        "work": found.work,
        "psnr": found.psnr,
        "latent_error": found.errors,
        "parts": [{"first": p.first, "last": p.last, "error": p.error} for p in told.parts],
        "why_not_faster": list(told.speed),
        "why_not_alike": list(told.likeness),
    }
    return finite(rounded(result))


def show(found: dict[str, Any]) -> None:
    """The same for people."""
    console = Console(highlight=False)
    options = ", ".join(f"{k}={v}" for k, v in found["options"].items())
    console.print(
        f"[bold]{found['method']}[/bold]{f' ({options})' if options else ''} on {found['model']}, {found['steps']} steps",
        soft_wrap=True,
    )
    console.print(found["computed"], soft_wrap=True)
    for title, said in (("How fast", found["why_not_faster"]), ("How like", found["why_not_alike"])):
        console.print(f"\n[bold]{title}[/bold]")
        for sentence in said:
            console.print(f"- {sentence}", soft_wrap=True, markup=False)
