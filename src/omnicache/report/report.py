"""Draws a pipeline's inputs without and with a plan, and writes the page about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omnicache import registry
from omnicache.api import enable
from omnicache.integrations.pipelines import denoisers, split_call
from omnicache.measure.comparison import environment
from omnicache.measure.diagnosis import Diagnosis, diagnose
from omnicache.measure.study import study
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.report.study_page import About, write_study

PAIRS = 5
"""Calls that are timed."""


def write_report(
    pipe: Any, method: str | Path | Plan | Policy, inputs: Sequence[Any], out: str | Path, *, pairs: int = PAIRS, **options: Any
) -> Path:
    """Draw ``inputs`` without and with a method, and write ``out/report.html`` about it: one page that opens without a network.

    Args:
        pipe: a diffusers pipeline.
        method: as of ``omnicache.enable``.
        inputs: as of ``omnicache.calibrate``; three or four do.
        out: a folder.
        pairs: calls that are timed, without and with it by turns.
        **options: the method's options, and arguments of every call of the pipeline (``num_inference_steps=30``).

    Raises:
        OmniCacheError: the method does not fit the pipeline.
    """
    known = {o.name for o in registry.get(method).options} if isinstance(method, str) and not method.endswith(".json") else set()
    ours, call = split_call(pipe, options, known, method if isinstance(method, str) else "this plan")
    running = enable(pipe, method, **ours)
    plan = running.plan
    running.disable()
    found = diagnose(pipe, study(pipe, plan, inputs, call, pairs=pairs))
    command = _again(pipe, method, inputs, out, options | ({"pairs": pairs} if pairs != PAIRS else {}))
    about = About(type(denoisers(pipe)[0]).__name__, setting(found, call), command, **tried(plan))
    return write_study(found, about, Path(out))


def setting(found: Diagnosis, call: Mapping[str, Any]) -> list[str]:
    """What it was measured with, in words."""
    device = environment(next(denoisers_of(found).parameters()).device)
    told = [f"{call['num_inference_steps']} steps"] if "num_inference_steps" in call else []
    told += [f"guidance {call['guidance_scale']:g}"] if isinstance(call.get("guidance_scale"), (int, float)) else []
    count, pairs = len(found.study.drawn), found.study.speed["pairs"]
    told += [f"{count} input{'s' * (count > 1)}", f"{pairs} timed pair{'s' * (pairs > 1)}", f"measured on {device['device']}"]
    return told + ([f"load average {found.study.speed['load']:g}"] if found.study.speed["load"] is not None else [])


def denoisers_of(found: Diagnosis) -> Any:
    """The network that was timed."""
    return found.study.drawn[0].look.run.sessions[0].model.model


def tried(plan: Plan) -> dict[str, Any]:
    """What a search for the plan has tried, for :class:`About`."""
    told = plan.measured.get("tuned")
    whose = "the inputs that the search chose by"
    return {} if not told else {"tried": told["tried"], "chosen": told["chosen"]["label"], "whose": whose}


def _again(pipe: Any, method: Any, inputs: Sequence[Any], out: str | Path, options: Mapping[str, Any]) -> str:
    """Lines of Python that write the page again. What cannot be written down, a pipeline or a tensor, is named in a comment."""
    name = type(pipe).__name__
    known = isinstance(method, (str, Path))
    lines = ["from omnicache.report import write_report", "", f"pipe = ...  # the {name} of this page"]
    lines += [] if known else ["plan = ...  # the plan of this page"]
    plain = _plain(list(inputs))
    lines.append(f"inputs = {list(inputs)!r}" if plain else f"inputs = [...]  # the {len(inputs)} of this page")
    given = [f"{key}={value!r}" if _plain(value) else f"{key}=..." for key, value in options.items()]
    lines.append(f"write_report({', '.join(['pipe', repr(str(method)) if known else 'plan', 'inputs', repr(str(out)), *given])})")
    return "\n".join(lines)


def _plain(value: Any) -> bool:
    """Whether what Python prints of a value makes it again."""
    if isinstance(value, Mapping):
        return all(map(_plain, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))
