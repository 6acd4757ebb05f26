"""Plans in words: each clause as a sentence, and what its parts do, from their own descriptions."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any

from omnicache.plan import Plan
from omnicache.policy import Trigger

JOINED = {
    "Or": "{a} or {b}",
    "And": "{a} and {b}",
    "Not": "not {a}",
    "Union": "{a} and {b}",
    "Intersection": "{a} inside {b}",
    "Difference": "{a} without {b}",
    "Called": "{called}",
}
FEW = 12
"""Entries of a list above which it is cut: schedules and fitted numbers are in the plan's file."""
LONG = 70
"""Characters of a word above which it is cut."""


def clauses(plan: Plan) -> list[str]:
    """A sentence for each clause of a plan."""
    found = [f"Run {plan.steps:.0%} of the sampler's steps, and cache nothing."] if plan.steps < 1 else []
    for p in plan.policies:
        said = f"Compute when {told(p.when)}, at {told(p.where)}; else {told(p.how)}"
        said += f", but for {told(p.which)}" if p.which is not None else ""
        found.append(said + (f"; fix with {told(p.fix)}" if p.fix is not None else "") + ".")
    return found


def glosses(plan: Plan) -> list[tuple[str, str]]:
    """The parts of a plan with what they do; of those that do the same, the first."""
    parts = [part for p in plan.policies for of in (p.when, p.where, p.how, p.which, p.fix) for part in _parts(of)]
    known: dict[str, str] = {}
    for part in parts:
        known.setdefault(_does(part), told(part))
    return [(part, does) for does, part in known.items()]


def told(value: Any) -> str:
    """A value as one would write it, without what goes without saying: ``First(3) or Every(5)``."""
    if isinstance(value, (tuple, list)) and any(isinstance(v, (tuple, list)) for v in value):
        return f"({len(value)} lists)"
    if isinstance(value, (tuple, list)):
        inside = ", ".join(map(told, value[:FEW]))
        return f"({inside}, … {len(value)} in all)" if len(value) > FEW else f"({inside})"
    if isinstance(value, float):
        return f"{value:.4g}"
    if not is_dataclass(value) or isinstance(value, type):
        text = str(value)
        return text if len(text) <= LONG else f"{text[: LONG - 1]}…"
    name, own = type(value).__name__, {f.name: getattr(value, f.name) for f in fields(value)}
    if name in JOINED:
        return JOINED[name].format(**{k: told(v) for k, v in own.items()})
    first = next(iter(own), None)
    always = first if isinstance(value, Trigger) and isinstance(own.get(first or ""), (int, float)) else None  # First(1), not First
    given = [(f.name, own[f.name]) for f in fields(value) if f.name == always or not _usual(f, own[f.name])]
    given = [(k, v) for k, v in given if v is not None]
    shown = [told(v) if k == first else f"{k}={told(v)}" for k, v in given]
    return f"{name}({', '.join(shown)})" if shown else name


def _usual(field: Field[Any], value: Any) -> bool:
    default = field.default if field.default_factory is MISSING else field.default_factory()
    return default is not MISSING and type(default) is type(value) and bool(default == value)


def _parts(value: Any) -> Iterator[Any]:
    """The value and those inside it, without what only joins others."""
    if not is_dataclass(value) or isinstance(value, type):
        return
    if type(value).__name__ not in JOINED:
        yield value
    for f in fields(value):
        inner = getattr(value, f.name)
        for one in inner if isinstance(inner, tuple) and len(inner) <= FEW else (inner,):
            yield from _parts(one)


def _does(value: Any) -> str:
    """The first sentence of a part's description, with its numbers in it, and without its papers."""
    text = " ".join((inspect.getdoc(value) or "").split("\n\n")[0].split())
    first = re.split(r"(?<=[^.\d]\.) (?=[A-Z`])", text)[0]
    first = re.sub(r" \([^()]*(arXiv|S\()[^()]*(\([^()]*\)[^()]*)*\)", "", first)
    numbers = {f.name: getattr(value, f.name) for f in fields(value)}

    def number(found: re.Match[str]) -> str:
        known = numbers.get(found[1])
        return told(known) if isinstance(known, (int, float)) and not isinstance(known, bool) else found[1]

    return re.sub(r"\b1 steps\b", "1 step", re.sub(r"``([^`]*)``", number, first)).replace("first 1 step", "first step")
