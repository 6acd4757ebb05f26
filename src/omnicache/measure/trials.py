"""What to try next: a setting of the same method that is gentler or bolder, tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from omnicache.api import plan_of
from omnicache.errors import OmniCacheError
from omnicache.fingerprint import kinds
from omnicache.measure.likeness import likeness
from omnicache.measure.made import pictures
from omnicache.measure.origins import Part
from omnicache.measure.speed import pair
from omnicache.measure.study import Study
from omnicache.plan import Plan
from omnicache.registry import METHODS, calibrated, in_words
from omnicache.words import decibels


@dataclass(frozen=True)
class Tried:
    """Another setting on the first input.

    Attributes:
        words: what was changed: ``interval=4``.
        speedup: of the denoiser, of one pair.
        psnr: in dB; None without pictures.
        before: the same of the plan itself on that input.
    """

    words: str
    speedup: float
    psnr: float | None
    before: float | None

    def __str__(self) -> str:
        like = ""
        if self.psnr is not None and self.before is not None:
            like = f" and {decibels(self.psnr)} instead of {decibels(self.before)}"
        return f"Tried on the first input: with {self.words} it is {self.speedup:.2f} times as fast (one pair){like}."


def change(plan: Plan, gentler: bool, parts: Sequence[Part] = (), steps: int = 0) -> dict[str, Any] | None:
    """Options to change, to the next gentler or bolder setting; None where nobody knows such, as of calibrated plans.

    Where most of the error comes from the first part of a run, that is computed, if the method has a warm-up.
    """
    entry = METHODS.get(plan.method)
    if entry is None or calibrated(plan) or not plan.options:
        return None
    known = {o.name for o in entry.options}
    whole = sum(part.error for part in parts)
    if gentler and "warmup" in known and parts and 2 * parts[0].error > whole and 2 * (parts[0].last + 1) <= steps:
        return {"warmup": parts[0].last + 1}
    if len(entry.sweep) == 1 and not entry.calibrates(entry.sweep):
        name, values = next(iter(entry.sweep.items()))
        found = _next(values, plan.options.get(name), gentler)
        return None if found is None else {name: found}
    threshold = plan.options.get("threshold")
    if isinstance(threshold, float) and threshold > 0:
        return {"threshold": float(f"{threshold * (0.67 if gentler else 1.5):.2g}")}
    return None


def attempt(pipe: Any, study: Study, changed: Mapping[str, Any]) -> Tried | None:
    """Draw the first input with the plan's method and other options; None if they do not go together."""
    plan, words = study.plan, ", ".join(in_words(changed))
    known = {o.name for o in METHODS[plan.method].options}
    options = {k: v for k, v in plan.options.items() if k in known and v is not None} | dict(changed)
    try:
        other = plan_of(plan.method, plan.guards, kinds(pipe), **options)
        with torch.no_grad():
            timed = pair(pipe, lambda: pipe(**study.calls[0]()), other, cached_first=False)
    except OmniCacheError:
        return None
    made, one = pictures(timed.made), study.drawn[0]
    like = None
    if made is not None and one.uncached is not None:
        like = float(likeness(made, one.uncached).mean())
    return Tried(words, timed.uncached / timed.cached, like, one.psnr)


def _next(values: Sequence[Any], now: Any, gentler: bool) -> Any:
    """The value before or after ``now`` in a list from careful to bold."""
    if not isinstance(now, (int, float)) or not all(isinstance(v, (int, float)) for v in values):
        return None
    rises = values[-1] >= values[0]
    bolder = [v for v in values if (v > now) == rises and v != now]
    careful = [v for v in values if (v < now) == rises and v != now]
    found = careful[-1:] if gentler else bolder[:1]
    return found[0] if found else None
