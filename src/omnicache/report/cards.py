"""A card for each method, from the registry, as Markdown.

    python -m omnicache.report.cards docs/methods.md

writes them all as one page.
"""

from __future__ import annotations

import inspect
import re
import sys
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import omnicache
from omnicache.registry import Choice, Method, Option, Range, options_of

GIVEN = ("pipe", "inputs", "call", "progress")
"""Arguments of a calibration that are not its options."""
HEAD = """# Methods

A card for each method, written from the code by `make docs`; `omnicache methods NAME` prints one. How they compare is measured by
`omnicache bench`.
"""


def page() -> str:
    """All cards."""
    entries = sorted(_ours(), key=lambda entry: entry.name)
    listed = [f"- [{entry.name}](#{entry.name}): {_code(_sentence(entry.summary))}" for entry in entries]
    return "\n".join([HEAD, *listed, "", *(card(entry) for entry in entries)])


def card(entry: Method) -> str:
    """One method: what it does, where it stands on the axes, its options, what else there is to know."""
    axes = entry.axes
    sentence = f"Compute when: {axes.get('when', '-')}. At: {axes.get('where', '-')}. Else: {axes.get('how', '-')}."
    sentence += f" Fix: {axes['fix']}." if axes.get("fix", "-") != "-" else ""
    facts = [
        ("Paper", entry.paper or "none"),
        ("Axes", sentence),
        ("Applies to", entry.architectures),
        ("Switched off by", _off(entry)),
        ("Calibration", _calibration(entry)),
        ("Compared at", "; ".join(f"{k} = {', '.join(map(_plain, v))}" for k, v in entry.sweep.items()) or "its defaults"),
    ]
    for kind, preset in entry.presets.items():
        facts.append((f"On {kind}", ", ".join(f"{k}={_plain(v)}" for k, v in preset.items()) + ", unless asked otherwise"))
    parts = [f"## {entry.name}", "", _code(entry.summary), "", *(f"- **{name}:** {_code(text)}" for name, text in facts), ""]
    parts += _table("Option", entry.options, entry.build)
    if entry.calibrate is not None:
        own = [option for option in options_of(entry.calibrate) if option.name not in GIVEN]
        parts += _table("Option of the calibration", own, entry.calibrate)
    return "\n".join([*parts, *_citation(entry)])


def _ours() -> list[Method]:
    """The methods of the package, without those that the user has registered."""
    return [entry for entry in omnicache.methods().values() if entry.build.__module__.startswith("omnicache.methods.")]


def _off(entry: Method) -> str:
    if entry.off is None:
        return f"nothing: {entry.off_reason}"
    return ", ".join(f"{k}={_plain(v)}" for k, v in entry.off.items()) or "it computes everything as it is"


def _calibration(entry: Method) -> str:
    if entry.calibrate is None:
        return "none"
    needed = "needed" if entry.needs_calibration else "possible"
    slow = ", takes minutes" if entry.slow_to_calibrate else ""
    return f'{needed}{slow}: ``omnicache.calibrate(pipe, inputs, "{entry.name}")``, or ``omnicache calibrate PIPE -m {entry.name}``'


def _table(what: str, options: typing.Iterable[Option], build: Callable[..., Any]) -> list[str]:
    about, options = described(build), list(options)
    if not options:
        return []
    lines = [f"| {what} | Default | Allowed | |", "|---|---|---|---|"]
    for one in options:
        cells = (f"`{one.name}`", _plain(one.default), allowed(one), _code(about.get(one.name, "")))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return [*lines, ""]


def described(build: Callable[..., Any]) -> dict[str, str]:
    """What a function's docstring says of its arguments, under ``Args``. Where several share one text, the first has it."""
    found: dict[str, str] = {}
    names: list[str] = []
    inside = False
    for line in (inspect.getdoc(build) or "").splitlines():
        if not line.startswith(" ") and line.strip():
            inside = line.strip() == "Args:"
        elif inside and (match := re.match(r" {4}([\w, ]+): (.+)$", line)):
            names = [name.strip() for name in match[1].split(",")]
            found[names[0]] = match[2]
            found |= dict.fromkeys(names[1:], f"see ``{names[0]}``.")
        elif inside and line.strip():
            found[names[0]] += f" {line.strip()}"
        if inside and len(names) > 1 and not found[names[0]].startswith("``"):
            found[names[0]] = f"{', '.join(f'``{name}``' for name in names)}: {found[names[0]]}"
    return {name: _sentence(text) for name, text in found.items()}


def allowed(option: Option) -> str:
    """What an option may be, in words."""
    return _kind(option.hint)


def _kind(hint: Any, several: bool = False) -> str:
    """What a type allows, in words."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        bound = next((one for one in inner[1:] if isinstance(one, (Range, Choice))), None)
        none = ", or None" if type(None) in typing.get_args(inner[0]) else ""
        return (_bound(bound) if bound is not None else "") + none or _kind(inner[0], several)
    if origin in (typing.Union, types.UnionType):
        parts = list(dict.fromkeys(_kind(one, several) for one in inner if one is not type(None)))
        return " or ".join(parts) + (", or None" if type(None) in inner else "")
    if hint is tuple or origin is tuple:
        return f"several: {_kind(inner[0], several=True)}" if inner else "several"
    words = {bool: "True, False", int: "a whole number", float: "a number", str: "a word", Path: "a folder"}
    if several:
        words |= {int: "whole numbers", float: "numbers", str: "words"}
    return words.get(hint, getattr(hint, "__name__", "anything"))


def _bound(bound: Range | Choice) -> str:
    if isinstance(bound, Choice):
        return ", ".join(f"`{word}`" for word in bound.words)
    low, high = (None if end is None else f"{end:g}" for end in (bound.low, bound.high))
    return f"{low} to {high}" if low and high else f"{low} or more" if low else f"{high} or less" if high else ""


def _citation(entry: Method) -> list[str]:
    """A BibTeX entry, as far as the registry knows the paper: whoever cites it adds the authors from there."""
    if not entry.paper:
        return []
    number = re.search(r"arXiv (\d+\.\d+)", entry.paper)
    title = re.sub(r" \(([^()]*arXiv[^()]*)\)$", "", entry.paper)
    fields = [f"  title = {{{title}}},"]
    if number:
        fields += [f"  eprint = {{{number[1]}}},", "  archivePrefix = {arXiv},", f"  url = {{https://arxiv.org/abs/{number[1]}}},"]
    return ["```bibtex", f"@misc{{{entry.name},", *fields, "}", "```", ""]


def _plain(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return "(" + ", ".join(map(_plain, value)) + ")" if value else "none"
    if isinstance(value, str):
        short = f"{value[:3]}… ({len(value)} of them)" if len(value) > 12 and len(set(value)) == 1 else value
        return f"`{short}`" if value else "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _code(text: str) -> str:
    """Docstrings mark code by two backticks, Markdown by one."""
    return text.replace("``", "`")


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
