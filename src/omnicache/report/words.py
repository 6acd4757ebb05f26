"""Plans in words: the sentence of their method, what their options mean, and what their parts do, from their own descriptions."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from omnicache.granularity import Called
from omnicache.plan import Plan
from omnicache.registry import METHODS, Method
from omnicache.report.cards import described
from omnicache.words import FEW, JOINED, options_of, told

Sentence = list[tuple[str, str]]
"""Parts of a sentence: the word before each, which is stressed, and what it says."""
SCHEDULES = ("Table", "Steps")
"""Triggers whose steps are shown, and not described."""


def sentences(plan: Plan) -> list[Sentence]:
    """What a plan does, a sentence for each of its methods as the registry puts it; of policies without one, in words of their
    parts."""
    found: list[Sentence] = []
    if plan.steps < 1:
        found.append([("Run", f"{plan.steps:.0%} of the sampler's steps{'' if plan.policies else ', and cache nothing'}")])
    known = [METHODS.get(name) for name in plan.method.split("+")]
    if plan.policies and not all(known):
        return found + [_own(p) for p in plan.policies]
    return found + [_of(entry, plan) for entry in known if entry is not None and plan.policies and "-" not in _axes(entry)]


def options(plan: Plan) -> list[tuple[str, str]]:
    """The options that a person would give, ``interval = 4``, with what each means."""
    found: list[tuple[str, str]] = []
    for name in plan.method.split("+"):
        given = plan.options.get(name) if "+" in plan.method else plan.options
        about = described(METHODS[name].build) if name in METHODS else {}
        for one in options_of(given if isinstance(given, Mapping) else {}):
            option, means = one.partition("=")[0], about.get(one.partition("=")[0], "").replace("``", "")
            if found and means.startswith("See "):  # it shares the text of one before
                found[-1] = (f"{found[-1][0]}, {one.replace('=', ' = ')}", found[-1][1])
                continue
            means = re.sub(rf"^{option}, [\w, ]+: ", "", means)
            found.append((one.replace("=", " = "), "" if ".py" in means else means[:1].upper() + means[1:]))
    return found


def _axes(entry: Method) -> tuple[str, str]:
    return entry.axes.get("when", "-"), entry.axes.get("how", "-")


def _of(entry: Method, plan: Plan) -> Sentence:
    when, how = _axes(entry)
    said = [("Compute", when) if when.startswith("by ") else ("Compute when:", when)]
    said += [("at", entry.axes.get("where", "-")), ("else", how)]
    fix = entry.axes.get("fix", "-")
    return said + ([("fix", fix)] if fix != "-" and plan.fixing is not None else [])


def _own(policy: Any) -> Sentence:
    parts = {"When:": policy.when, "at:": policy.where, "else:": policy.how, "but for:": policy.which, "fix:": policy.fix}
    return [(word, "; ".join(dict.fromkeys(map(_does, _parts(part))))) for word, part in parts.items() if part is not None]


def _parts(value: Any) -> Iterator[Any]:
    """The value and those inside it, without what only joins others."""
    if isinstance(value, Called):
        yield value
        return
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
    if type(value).__name__ in SCHEDULES:
        return "the steps of a schedule"
    if isinstance(value, Called):
        return value.called
    text = " ".join((inspect.getdoc(value) or "").split("\n\n")[0].split())
    first = re.split(r"(?<=[^.\d]\.) (?=[A-Z`])", text)[0]
    first = re.sub(r" \([^()]*(arXiv|S\()[^()]*(\([^()]*\)[^()]*)*\)", "", first).removesuffix(".")
    numbers = {f.name: getattr(value, f.name) for f in fields(value)}

    def number(found: re.Match[str]) -> str:
        known = numbers.get(found[1])
        return told(known) if isinstance(known, (int, float)) and not isinstance(known, bool) else found[1]

    said = re.sub(r"\b(first|last) 1 steps?\b", r"\1 step", re.sub(r"``([^`]*)``", number, first))
    said = said.removeprefix("Computes when ").removeprefix("Computes ")
    return said[:1].lower() + said[1:]
