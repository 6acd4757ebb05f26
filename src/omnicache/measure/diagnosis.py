"""Why a plan is not faster and why its pictures look wrong, from a study: sentences with numbers and a next step."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from omnicache.asked import Asked
from omnicache.explain import not_faster
from omnicache.measure.likeness import ALIKE
from omnicache.measure.origins import Part, origins
from omnicache.measure.study import Study
from omnicache.measure.trials import Tried, attempt, change
from omnicache.registry import METHODS, calibrated
from omnicache.words import SAME, decibels, seconds

NEAR = 0.03
"""Relative error of final latents below which nothing is proposed, where there are no pictures to tell."""
SURPLUS = 0.15
"""Share by which computed evaluations must take longer than uncached ones to be told of."""


@dataclass(frozen=True)
class Diagnosis:
    """A study, where its error comes from, what the next setting does, and how it was asked for."""

    study: Study
    parts: tuple[Part, ...]
    tried: Tried | None
    asked: Asked
    speed: tuple[str, ...]
    likeness: tuple[str, ...]


def diagnose(pipe: Any, study: Study, asked: Asked | None = None) -> Diagnosis:
    """Measure where the error comes from, try the next setting, and put all of it into words: in a command, as ``asked``."""
    asked = replace(asked if asked is not None else Asked(), closely=True)
    parts = tuple(origins(pipe, study))
    unlike = is_unlike(study)
    steps = len(study.drawn[0].look.run.computed)
    told = is_idle(study) and bool(not_faster(study.trace, study.plan, asked))  # then that says what to try
    changed = None if told else change(study.plan, unlike, parts, steps)
    tried = attempt(pipe, study, changed) if changed is not None else None
    speed, likeness = _speed(study, asked), _likeness(study, parts)
    other = _calibration(study, unlike, asked) or _another(study, unlike, asked) * (not told)
    advice = [str(tried)] if tried is not None else other
    return Diagnosis(study, parts, tried, asked, tuple(speed + advice * (not unlike)), tuple(likeness + advice * unlike))


def is_unlike(study: Study) -> bool:
    """Whether the pictures can be told apart, or, without pictures, the latents are far off."""
    if study.psnr is not None:
        return statistics.fmean(study.psnr) < ALIKE
    ends = [one.end for one in study.drawn if one.end is not None]
    return bool(ends) and not statistics.fmean(ends) < NEAR


def is_idle(study: Study) -> bool:
    """Whether a plan has computed everything, so that no speed is its own."""
    return study.plan.steps == 1.0 and not any(set(one.look.run.computed) - {"#"} for one in study.drawn)


def is_identical(study: Study) -> bool:
    """Whether the pictures, or, without pictures, the latents are those of the uncached pipeline."""
    if study.psnr is not None:
        return min(study.psnr) >= SAME
    ends = [one.end for one in study.drawn if one.end is not None]
    return bool(ends) and not any(ends)


def _speed(study: Study, asked: Asked) -> list[str]:
    fast, whole, each, idle = study.speed, study.whole, study.seconds_each, is_idle(study)
    ratio, n = fast["speedup"], fast["pairs"]
    uncached, cached = seconds(fast["uncached"]), seconds(fast["cached"])
    between = f" ({ratio['low']:.2f} to {ratio['high']:.2f}, {n} pairs)" if n > 1 else " (one pair)"
    verb = "times as fast" if ratio["median"] >= 1 else "times as fast, which is slower than without a cache"
    said = [f"The denoiser is {ratio['median']:.2f} {verb}{between}: {uncached} became {cached}."]
    if idle:
        said = [
            f"Nothing was reused, so it is as fast as uncached: the denoiser took {uncached} without the plan and {cached} with "
            "it, which differ by chance and by what deciding costs."
        ]
    share = whole["share"]
    bound = "a cache can reach all of it"
    if share < 0.995:
        bound = f"no cache can make the whole call more than {1 / (1 - share):.1f} times as fast"
    gained = "" if idle else f"; with this plan it is {whole['speedup']:.2f} times as fast"
    said.append(f"{'The denoiser' if idle else 'It'} takes {share:.0%} of an uncached call, so {bound}{gained}.")
    names = {"#": "a computed one", ".": "a reused one", "o": "one computed in part", "?": "one that is checked"}
    told = ", ".join(f"{name} {1e3 * each[mark]:.1f} ms" for mark, name in names.items() if mark in each)
    if told:
        surplus = each["#"] / each["uncached"] - 1 if "#" in each else 0.0
        longer = f" Computed ones take {surplus:.0%} longer than uncached ones." if surplus > SURPLUS else ""
        said.append(f"An uncached evaluation takes {1e3 * each['uncached']:.1f} ms, {told}.{longer}")
    if math.isfinite(study.work) and not idle:
        said.append(f"{study.work:.0%} of the operations are done in {fast['cached'] / fast['uncached']:.0%} of the time.")
    trace = study.trace
    return said + trace.remarks + not_faster(trace, study.plan, asked)


def _likeness(study: Study, parts: Sequence[Part]) -> list[str]:
    said: list[str] = []
    drawn, first = study.drawn, study.drawn[0]
    ends = [one.end for one in drawn if one.end is not None]
    latents = f"the final latents are off by {statistics.fmean(ends):.1%}" if ends else ""
    if study.psnr is not None and is_identical(study):
        said.append(f"Pictures are identical to the uncached ones, on {f'all {len(drawn)} inputs' if drawn[1:] else 'one input'}.")
    elif study.psnr is not None:
        mean, low, high = statistics.fmean(study.psnr), min(study.psnr), max(study.psnr)
        on = f"({low:.1f} to {f'{high:.1f}' if high < SAME else decibels(high)} on {len(drawn)} inputs)"
        hard = f"from {ALIKE:g} dB on they are hard to tell apart"
        judged = hard if mean >= ALIKE else f"below {ALIKE:g} dB people can tell them apart"
        said.append(f"Pictures match the uncached ones at {mean:.1f} dB {on if drawn[1:] else 'on one input'}: {judged}.")
    if latents and not is_identical(study):
        said.append(f"{latents[0].upper()}{latents[1:]}.")
    strayed = first.look.strayed
    known = [(e, i) for i, e in enumerate(strayed) if math.isfinite(e)]
    if known and max(known)[0] > 0:
        error, at = max(known)
        before = " before the plan corrects them" if study.repair else ""
        where = f"at step {at + 1} of {len(strayed)}, {error:.0%} off{before}"
        said.append(f"Outputs are furthest from the whole model's {where}; short steps carry little of it into the latents.")
    if parts and (whole := first.end):
        told = [f"only in {'steps' if p.last > p.first else 'step'} {p}, {p.error / whole:.0%}" for p in parts]
        said.append(f"With reuse {', '.join(told)} of the first input's final error would be left.")
    return said


def _calibration(study: Study, unlike: bool, asked: Asked) -> list[str]:
    """What to ask a calibration for next, where the plan comes from one."""
    plan = study.plan
    entry = METHODS.get(plan.method)
    if entry is None or not calibrated(plan):
        return []
    marks = study.drawn[0].look.run.computed
    reused = 1 - marks.count("#") / max(len(marks), 1)
    name = next((n for n in ("reuse", "speedup") if any(n in dict(s) for s in entry.settings)), None)
    if name is None or not 0 < reused < 1:
        return []
    better = {"reuse": reused + (-0.1 if unlike else 0.1), "speedup": study.speedup * (0.85 if unlike else 1.15)}[name]
    if name == "reuse" and not 0.05 < better < 0.96:
        return []
    what = "likelier pictures" if unlike else "more speed"
    words = ("-m", plan.method, "-o", f"{name}={better:.2f}", *_settings(study), "--out", f"{plan.method}-{better:.2f}.plan.json")
    return [f"For {what}: {asked.command('calibrate', *words)}, or omnicache tune with a goal."]


def _another(study: Study, unlike: bool, asked: Asked) -> list[str]:
    """What to do where no other setting of the method is known."""
    if not study.plan.policies and study.plan.steps == 1.0:
        return []
    goal = ("--psnr", f"{ALIKE:g}") if unlike else ("--speedup", f"{max(study.speedup + 0.5, 1.1):.1f}")
    search = asked.command("tune", *goal, *_settings(study), "--out", "tuned.plan.json")
    return [f"No {'gentler' if unlike else 'bolder'} setting of {study.plan.method} is known; search: {search}"]


def _settings(study: Study) -> list[str]:
    """The steps and the guidance that the plan was made for or else was studied with, for a command."""
    call, told = {**study.calls[0](), **study.plan.made_for}, []
    for word, name in (("--steps", "num_inference_steps"), ("--guidance", "guidance_scale")):
        told += [word, f"{call[name]:g}"] if isinstance(call.get(name), (int, float)) else []
    return told
