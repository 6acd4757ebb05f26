"""What a demo gained, in words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from omnicache.measure.likeness import ALIKE
from omnicache.report import _human
from omnicache.report.fewer_steps import FewerSteps
from omnicache.report.run import Run
from omnicache.words import SAME


@dataclass(frozen=True)
class Verdict:
    """The headline of the page: the fastest method that keeps the pictures, and how it stands to taking fewer steps."""

    best: Run | None
    headline: str
    gain: str
    caveat: str
    rule: str
    wins: bool

    @classmethod
    def of(cls, result: dict[str, Any], runs: list[Run]) -> Verdict:
        """Judge the runs of a demo's result."""
        base = result.get("baseline") or {}
        images, unit = int(result.get("images") or 1), str(result.get("unit") or "picture")
        slack = max(0.02, 1 / images)
        reference = FewerSteps(runs)
        kept = [run for run in runs if run.is_cache and _keeps(run, base.get("class_accuracy"), slack)]
        rule = (
            f"A method keeps the {unit}s when they are hard to tell apart from the uncached ones, at a PSNR of {ALIKE:g} dB or more"
        )
        if base.get("class_accuracy") is not None:
            allowed = f"one {unit}" if slack == 1 / images else _human.percent(slack)
            rule += f" and the classifier recognises at most {allowed} fewer"
        short = [run for run in runs if run.method == "fewer-steps"]
        short = [run for run in short if _keeps(run, base.get("class_accuracy"), slack)]
        fewer = max(short, key=lambda run: run.speedup or 0, default=None)
        if not kept:
            instead = f"Simply taking fewer steps was: {_figures(fewer)}." if fewer else ""
            return cls(None, "No method was both faster and close enough", _nearest(runs), instead, rule + ".", wins=False)
        best = max(kept, key=lambda run: run.speedup or 0)
        look = "and identical" if best.psnr is not None and best.psnr >= SAME else "and hard to tell apart"
        caveat, wins = _caveat(best, kept, fewer, reference, unit)
        gain = f"{best.name} makes {images} {unit}{'' if images == 1 else 's'} in {_human.seconds(best.seconds)}; "
        gain += f"without a cache they take {_human.seconds(base.get('seconds'))}."
        if best.compute is not None:
            gain += f" It computes {_human.percent(best.compute)} of the work."
        if best.psnr is not None:
            like = (
                "are identical to the uncached ones" if best.psnr >= SAME else f"match the uncached ones at {best.psnr:.1f} dB PSNR"
            )
            gain += f" The {unit}s {like}"
            if best.accuracy is not None and base.get("class_accuracy") is not None:
                gain += f", and a classifier recognises {_human.percent(best.accuracy)} of them"
                gain += f" (uncached: {_human.percent(base['class_accuracy'])})"
            gain += "."
        if best.spread and best.speedup and best.spread[1] - best.spread[0] > 0.15 * best.speedup:
            gain += f" Repeats gave {_human.spread(best.spread)}×, so take the speed as rough."
        return cls(best, f"{best.speedup:.2f} times as fast, {look}", gain, caveat, rule + ".", wins)


def _keeps(run: Run, accuracy: float | None, slack: float) -> bool:
    if run.psnr is None or run.psnr < ALIKE or (run.speedup or 0) <= 1 or run.is_idle:
        return False
    return accuracy is None or run.accuracy is None or run.accuracy >= accuracy - slack - 1e-9


def _nearest(runs: list[Run]) -> str:
    faster = [run for run in runs if run.is_cache and run.psnr is not None and (run.speedup or 0) > 1 and not run.is_idle]
    if not faster:
        return "None of the methods was faster than running without a cache."
    near = max(faster, key=lambda run: run.psnr or 0)
    return f"The closest of the faster ones was {near.name}: {_figures(near)}."


def _figures(run: Run) -> str:
    return f"{_human.times(run.speedup)} at {_human.decibels(run.psnr)}".replace("at identical", "and identical")


def _caveat(best: Run, kept: list[Run], fewer: Run | None, reference: FewerSteps, unit: str) -> tuple[str, bool]:
    """One sentence or two on fewer steps, and whether the method beats them."""
    if not reference.runs:
        return "It was not compared with simply taking fewer steps.", False
    mine = best.psnr if best.psnr is not None else math.nan
    at_speed, at_compute = reference.psnr_at_speed(best.speedup), reference.psnr_at_compute(best.compute)
    if reference.beats(best):
        text = f"But fewer steps does better here: as fast or faster, it reaches {_human.decibels(at_speed)}."
        others = [run for run in kept if not reference.beats(run)]
        if others:
            other = max(others, key=lambda run: run.speedup or 0)
            text += f" The fastest method that it does not beat is {other.name}: {_figures(other)}."
        return text, False
    if fewer and (fewer.speedup or 0) > (best.speedup or 0):
        return f"But simply taking fewer steps keeps the {unit}s too, and is faster: {_figures(fewer)}.", False
    if at_compute is not None and at_compute > mine:
        text = f"With the same share of compute, fewer steps would reach {_human.decibels(at_compute)}, so its lead"
        return text + " is in time alone.", False
    there, same = (at_speed, "speed") if at_speed is not None else (at_compute, "compute")
    if there is None:
        return "No run with fewer steps was as fast, so the two cannot be compared here.", False
    return f"Simply taking fewer steps reaches {_human.decibels(there)} at the same {same}.", True
