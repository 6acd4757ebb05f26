"""Values, times and what a plan was made for, as people write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import TYPE_CHECKING, Any

from omnicache.policy import Trigger

if TYPE_CHECKING:
    from omnicache.policy import Policy

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
SOME = 6
"""Options that are printed."""
LONG = 70
"""Characters of a word above which it is cut."""
SAME = 99.95
"""dB from which pictures are called identical: equal ones are counted as 100, which would else be rounded to."""


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


def clause(policy: Policy) -> str:
    """A clause of a plan as one would write it, in the names of its parts."""
    said = f"compute when {told(policy.when)}, at {told(policy.where)}, else {told(policy.how)}"
    said += f", but for {told(policy.which)}" if policy.which is not None else ""
    return said + (f", fix with {type(policy.fix).__name__}" if policy.fix is not None else "")


def plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a person would give: schedules and fitted numbers are in the plan's file."""

    def is_plain(value: Any) -> bool:
        word = isinstance(value, str) and 0 < len(value) <= 16 and not set(value) <= {*"#."}
        return word or isinstance(value, (bool, int, float))

    return {name: value for name, value in options.items() if is_plain(value)}


def options_of(options: Mapping[str, Any]) -> list[str]:
    """Those as people write them, ``["interval=4", "basis=taylor"]``."""
    return [f"{name}={told(value)}" for name, value in plain(options).items()]


def few_options(options: Mapping[str, Any]) -> str:
    """The first of them in brackets; of a plan of several methods, of each."""
    each = {name: few_options(value) for name, value in options.items() if isinstance(value, Mapping)}
    inside = [f"{name}{shown}" for name, shown in each.items() if shown]
    given = options_of(options)
    inside += given if len(given) <= SOME else [*given[:SOME], "…"]
    return f" ({', '.join(inside)})" if inside else ""


def fits(made_for: Mapping[str, Any]) -> str:
    """What a plan was made for: ``"DiTTransformer2DModel, 20 steps, guidance 2"``."""
    said = {
        "model": "{}",
        "num_inference_steps": "{} steps",
        "guidance_scale": "guidance {}",
        "scheduler": "{}",
        "latents": "latents of {}",
    }
    found = []
    for name, value in made_for.items():
        if name == "scheduler":
            value = str(value).partition("(")[0]  # its settings are in the plan's file
        elif name == "latents" and isinstance(value, (tuple, list)):
            value = " × ".join(map(str, value))
        if name in said:
            found.append((list(said).index(name), said[name].format(told(value))))
        elif name not in ("parameters", "weights", "output_type") and isinstance(value, (bool, int, float, str)):
            found.append((len(said), f"{name} {told(value)}"))
    return ", ".join(text for _, text in sorted(found, key=lambda one: one[0]))


def reached(measured: Mapping[str, Any]) -> str:
    """What a plan gains and loses, as its search or its calibration has measured it; "" where neither has."""
    tuned = measured.get("tuned", {})
    if "held_out" in tuned:
        return f"tuned for {goal(tuned['goal'])}: {held_out(tuned)}"
    if isinstance(steps := measured.get("carried_over", {}).get("num_inference_steps"), int):
        return f"carried over from {steps} steps, and not measured since"
    found = [f"{measured['speedup']:.2f} times as fast"] if isinstance(measured.get("speedup"), float) else []
    found += [f"final latents {measured['error']:.1%} off"] if isinstance(measured.get("error"), float) else []
    return f"on the inputs of its calibration: {', '.join(found)}" if found else ""


def goal(text: str) -> str:
    """What a search was asked for, in words: of ``"speedup=2, psnr=32"``, 2 times as fast and 32 dB or more."""
    said = {"speedup": "{} times as fast", "psnr": "{} dB or more", "memory": "at most {} kept"}
    parts = [part.partition("=") for part in text.split(", ")]
    return " and ".join(said.get(name, f"{name} {{}}").format(value.strip("'")) for name, _, value in parts)


def held_out(tuned: Mapping[str, Any]) -> str:
    """What a search has found its plan to do on the inputs that it was not chosen by."""
    held = tuned["held_out"]
    fast, like, count = held.get("speedup"), held["psnr"], held["inputs"]
    found = [f"{fast['median']:.2f} times as fast ({fast['low']:.2f} to {fast['high']:.2f})"] if fast else []
    found.append(decibels(like["mean"]) + (f" ({like['low']:.1f} to {like['high']:.1f})" if like["mean"] < SAME else ""))
    return f"{' and '.join(found)} on {count} input{'s' * (count > 1)} that it was not chosen by"


def some(names: Sequence[str], few: int = 3) -> str:
    """The first of a long list: ``"a; b; c; 9 more"``."""
    return "; ".join([*names[:few], *([f"{len(names) - few} more"] if len(names) > few else [])])


def decibels(psnr: float) -> str:
    """A likeness with its unit."""
    return "identical" if psnr >= SAME else f"{psnr:.1f} dB"


def seconds(value: float) -> str:
    """A time with its unit and two digits or three."""
    if value < 0.1:
        return f"{1e3 * value:.{1 if value < 0.01 else 0}f} ms" if value else "0 s"
    return f"{value:.2f} s" if value < 10 else f"{value:.1f} s" if value < 100 else f"{value:.0f} s"


def _usual(field: Field[Any], value: Any) -> bool:
    default = field.default if field.default_factory is MISSING else field.default_factory()
    return default is not MISSING and type(default) is type(value) and bool(default == value)
