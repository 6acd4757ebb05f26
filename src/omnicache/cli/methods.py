from __future__ import annotations

import math
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markdown import Markdown

import omnicache
from omnicache import registry
from omnicache.cli.common import print_json, table_of
from omnicache.cli.options import AsJson
from omnicache.registry import Choice, Method, Range
from omnicache.report.cards import card

AXES = ("when", "where", "how", "fix")


def methods(
    name: Annotated[str | None, typer.Argument(help="A method, to read all about it.")] = None,
    as_json: AsJson = False,
) -> None:
    """List all methods: when they compute, where, what they do else, and options. Or print the card of one, with its paper, the
    ranges of its options and what it needs; --json has all of that of each."""
    if name is not None:
        entry = registry.get(name)
        if as_json:
            print_json(describe(entry))
        elif (console := Console(highlight=False)).is_terminal:
            console.print(Markdown(card(entry)))
        else:
            print(card(entry))
        return
    found = [describe(m) for m in omnicache.methods().values()]
    if as_json:
        print_json({"methods": found})
        return
    names = [m["name"] + ("*" if m["needs_calibration"] else "") for m in found]
    rows = [(name, *(m["axes"].get(axis, "") for axis in AXES)) for name, m in zip(names, found, strict=True)]
    console = Console(highlight=False)
    console.print(table_of(console, ("method", "compute when", "at", "else", "fix"), rows))
    console.print("* calibrate it first: omnicache calibrate PIPELINE -m NAME\n")
    for m in found:
        if m["options"]:
            console.print(f"[bold]{m['name']}[/bold]: " + ", ".join(f"{o['name']}={_short(o['default'])}" for o in m["options"]))
    console.print("\nAll about one of them: omnicache methods NAME")


def describe(entry: Method) -> dict[str, Any]:
    """A method as JSON."""
    return {
        "name": entry.name,
        "summary": entry.summary,
        "paper": entry.paper,
        "axes": dict(entry.axes),
        "options": [{"name": o.name, "default": _finite(o.default), "range": _allowed(o.allowed)} for o in entry.options],
        "needs_calibration": entry.needs_calibration,
        "can_be_calibrated": entry.calibrate is not None,
        "architectures": entry.architectures,
        "off": None if entry.off is None else {k: _finite(v) for k, v in entry.off.items()},
        "presets": {kind: dict(preset) for kind, preset in entry.presets.items()},
        "sweep": {k: list(v) for k, v in entry.sweep.items()},
    }


def _allowed(allowed: Range | Choice | None) -> Any:
    if isinstance(allowed, Range):
        return {"low": allowed.low, "high": allowed.high}
    return list(allowed.words) if isinstance(allowed, Choice) else None


def _finite(default: Any) -> Any:
    return str(default) if isinstance(default, float) and not math.isfinite(default) else default


def _short(default: Any) -> str:
    return "…" if isinstance(default, (tuple, list)) else str(default) if default != "" else "…"
