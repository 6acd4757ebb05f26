"""What the command line can ask of a pipeline: a prompt or a class, the number of steps, guidance; nothing else."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch

from omnicache.asked import Asked
from omnicache.cli.common import usual
from omnicache.errors import OmniCacheError
from omnicache.integrations.pipelines import as_call
from omnicache.plan import Plan

SUBJECTS = ("prompt", "class_labels")
"""The arguments that ``-i`` fills."""
PROMPT = "a red fox in snow"
STEPS = 50
"""Where neither a plan nor the pipeline says how many."""
APART = 1000
"""Seed of the first input that a plan is judged by, where none is given: ``calibrate`` and ``tune`` fit on those from 0 on."""


def subject_of(pipe: Any, usual: Mapping[str, Any] = MappingProxyType({})) -> str | None:
    """The argument that says what to draw; None where the pipeline draws what it was trained on, or from what is ``usual``.

    Raises:
        OmniCacheError: it needs more than the command line can give.
    """
    parameters = inspect.signature(pipe.__call__).parameters
    subject = next((name for name in SUBJECTS if name in parameters), None)
    needed = [
        name
        for name, p in parameters.items()
        if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and name not in (subject, *usual)
    ]
    if needed:
        raise OmniCacheError(
            f"{type(pipe).__name__} needs {' and '.join(needed)}, and the command line gives prompts and classes only. "
            "Use it from Python: with omnicache.cache(pipe, ...): pipe(...)."
        )
    return subject


def inputs_of(pipe: Any, asked: list[str], count: int = 1, usual: Mapping[str, Any] = MappingProxyType({})) -> list[dict[str, Any]]:
    """Keyword arguments for every ``-i``; without one, ``count`` inputs that suit the pipeline, if it can do with such: many
    classes from the first one on, to fit on, or one that is not the first, to draw.

    Raises:
        OmniCacheError: the pipeline does not take what was asked.
    """
    subject = subject_of(pipe, usual)
    labels = getattr(pipe, "labels", None) or {}
    if subject is None:
        if asked:
            raise OmniCacheError(f"{type(pipe).__name__} takes neither a prompt nor a class; leave -i out.")
        return [{} for _ in range(count)]
    if subject == "class_labels":
        known = list(labels.values()) or list(range(max(count, 2)))
        spread = known[:: max(1, len(known) // count)][:count] if count > 1 else [known[len(known) // 2]]
        return [{subject: [one]} for one in [_class(pipe, text) for text in asked] or spread]
    return [{subject: text} for text in asked or [usual.get(subject, PROMPT)] * count]


def _class(pipe: Any, text: str) -> int:
    if not text.isdigit() and not getattr(pipe, "labels", None):
        raise OmniCacheError(f"{type(pipe).__name__} takes classes by number, for example -i 3; not {text!r}.")
    call = as_call(pipe, int(text) if text.isdigit() else text, 0)  # looks names up, and refuses what there is not
    return next(iter(call.values()))[0]


def settings_of(
    pipe: Any, steps: int, guidance: float | None = None, usual: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Any]:
    """The number of steps, guidance if it was given, and what is ``usual`` else, as keyword arguments.

    Raises:
        OmniCacheError: the pipeline has no such argument.
    """
    parameters, name = inspect.signature(pipe.__call__).parameters, type(pipe).__name__
    if "num_inference_steps" not in parameters:
        raise OmniCacheError(
            f"{name} takes no num_inference_steps, so the command line cannot run it. "
            "Use it from Python: with omnicache.cache(pipe, ...): pipe(...)."
        )
    settings = {name: value for name, value in usual.items() if name not in SUBJECTS} | {"num_inference_steps": steps}
    if guidance is None:
        return settings
    if "guidance_scale" not in parameters:
        raise OmniCacheError(f"{name} takes no guidance; leave --guidance out.")
    return settings | {"guidance_scale": guidance}


def settings_for(name: str, pipe: Any, plan: Plan, steps: int | None, guidance: float | None) -> dict[str, Any]:
    """The same for a plan on the pipeline ``name``: what is not given is as the plan was made for, else as suits the pipeline."""
    suits = usual(name)
    known = plan.made_for.get("num_inference_steps", suits.get("num_inference_steps", STEPS))
    made = plan.made_for.get("guidance_scale")
    return settings_of(pipe, known if steps is None else steps, made if guidance is None else guidance, suits)


def asked_as(
    name: str, method: str, option: Sequence[str] = (), steps: int | None = None, guidance: float | None = None, saved: str = ""
) -> Asked:
    """The words of a command, for those that it proposes; ``saved``: where the plan lies if no words give it."""
    settings = (("--steps", steps), ("--guidance", guidance))
    given = [word for name, value in settings if value is not None for word in (name, f"{value:g}")]
    return Asked(name, ("-m", method, *(word for one in option for word in ("-o", one))), tuple(given), saved)


def draw(pipe: Any, call: Mapping[str, Any]) -> Any:
    """The pipeline's answer.

    Raises:
        OmniCacheError: the pipeline did not accept the call.
    """
    try:
        with torch.no_grad():
            return pipe(**call)
    except (TypeError, ValueError, IndexError) as no:
        raise OmniCacheError(
            f"{type(pipe).__name__} failed with {type(no).__name__}: {no}. The command line gave it {', '.join(call)}; if it needs "
            "more than that, use it from Python: with omnicache.cache(pipe, ...): pipe(...)."
        ) from no
