"""The page about one plan: the answer first, then how it looks, where time and error come from, and how to do it again."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from omnicache import words
from omnicache.asked import Asked
from omnicache.explain import not_faster
from omnicache.measure.diagnosis import Diagnosis, is_identical, is_idle
from omnicache.measure.likeness import ALIKE
from omnicache.measure.study import Study
from omnicache.plan import Plan
from omnicache.report import _human
from omnicache.report._panels import panels
from omnicache.report._picture import FRAMES_A_SECOND, clips, data_uris
from omnicache.report._study_panels import error_panels, layer_panels, memory_panel, path_panel
from omnicache.report._svg import inline, variable, vega_svg
from omnicache.report._template import render, written
from omnicache.report.calibration import picture_data
from omnicache.report.frontier_chart import drawn, frontier_chart, frontier_key, same
from omnicache.report.strip import CLASSES, WORDS, Strip
from omnicache.report.trials import trial_rows
from omnicache.report.words import options, sentences
from omnicache.tuning.goal import LATE


@dataclass(frozen=True)
class About:
    """What a page says besides the study.

    Attributes:
        model: its name.
        setting: what it was measured with, in words.
        command: what to type to do it again.
        tried: other settings, ``{"label", "speedup", "psnr"}``.
        chosen: the label of the one that the page is about.
        whose: what the figures of the others are of, as they are not of the page's own inputs.
    """

    model: str
    setting: Sequence[str] = ()
    command: str = ""
    tried: Sequence[Mapping[str, Any]] = ()
    chosen: str = ""
    whose: str = ""


def write_study(found: Diagnosis, about: About, out: Path) -> Path:
    """Write ``out/report.html``, one file that opens without a network."""
    study = found.study
    shown = [one for one in study.drawn if one.uncached is not None and one.cached is not None]
    if len({one.uncached.shape for one in shown if one.uncached is not None}) > 1:
        shown = shown[:1]  # the page has one shape of tiles
    batch = (
        {
            "uncached": torch.cat([one.uncached[:1] for one in shown if one.uncached is not None]),
            "cached": torch.cat([one.cached[:1] for one in shown if one.cached is not None]),
        }
        if shown
        else {}
    )
    uris = data_uris(batch) if shown else {}
    size = tuple(batch["uncached"].shape[-2:]) if shown else (1, 1)
    frames = clips(batch["uncached"]).shape[1] if shown else 1
    marks = study.drawn[0].look.run.computed
    strip = Strip(marks, len(marks))
    bars = _bars(study)
    kinds = {part["kind"] for row in bars for part in row["parts"]}
    page = render(
        "report.html.j2",
        title=_title(answer := _answer(study, found.asked)),
        model=about.model,
        method=study.plan.method,
        answer=answer,
        setting=" · ".join(about.setting),
        pictures=[
            {"label": one.label, "psnr": "" if one.psnr is None else _human.decibels(one.psnr), "uncached": a, "cached": b}
            for one, a, b in zip(shown, uris.get("uncached", []), uris.get("cached", []), strict=False)
        ],
        unit="picture" if frames == 1 else "clip",
        columns=max(1, len(shown)),
        size=size,
        frames=frames,
        duration=1000 // FRAMES_A_SECOND,
        crisp=max(size) <= 128,
        likeness=found.likeness,
        speed=found.speed,
        first=study.drawn[0].label,
        bars=bars,
        bar_key=[(kind, words) for kind, words in BAR_WORDS.items() if kind in kinds],
        strip=strip,
        key=[(CLASSES[kind], WORDS[kind]) for kind in "#o?." if kind in strip.kinds],
        ticks=Strip.ticks(len(marks)),
        errors=error_panels(study),
        layers=layer_panels(study),
        along=path_panel(study) + memory_panel(study),
        charts=_frontier(about),
        tried=_tried(about),
        chart_key=frontier_key(trial_rows(about.tried), about.chosen),
        calibration=_calibration(study.plan),
        variable=variable,
        words=sentences(study.plan),
        options=options(study.plan),
        made_for=words.fits(study.plan.made_for),
        command=about.command,
    )
    return written(page, out, "report.html")


BAR_WORDS = {
    "full": "evaluations that were computed",
    "part": "computed in part",
    "draft": "drafted and checked",
    "reuse": "reused",
    "rest": "outside of the denoiser",
}


def _title(answer: Mapping[str, Any]) -> str:
    return ", ".join(part for part in (answer["fast"], answer["like"]) if part)


def _answer(study: Study, asked: Asked) -> dict[str, Any]:
    """The page's first lines."""
    ratio, pairs, idle, same = study.speed["speedup"], study.speed["pairs"], is_idle(study), is_identical(study)
    ends = [one.end for one in study.drawn if one.end is not None]
    like = "identical" if same else f"latents {statistics.fmean(ends):.1%} off" if ends else ""
    if not same and study.psnr is not None:
        like = _human.decibels(statistics.fmean(study.psnr))
    fast, between, caveats = f"{ratio['median']:.2f} times as fast", "(one pair)", list[str]()
    if idle:
        what = "Nothing was reused" if study.plan.policies else "Nothing is cached"
        fast, between, like = f"{what}: it is as fast as uncached", "", "" if same else like
        caveats += not_faster(study.trace, study.plan, asked)
    elif pairs > 1:
        between = f"({ratio['low']:.2f} to {ratio['high']:.2f}, {pairs} pairs)"
    if not idle and ratio["median"] < 1:
        caveats.append("It is slower than without a cache: leave it off, or take another method.")
    elif not idle and ratio["low"] < 1 < ratio["high"]:
        caveats.append("Some pairs were slower than without a cache, so the gain is not sure.")
    if study.psnr is not None and statistics.fmean(study.psnr) < ALIKE:
        caveats.append(f"It looks different: below {ALIKE:g} dB people can tell such pictures from the uncached ones.")
    caveats += _short(study)
    count = len(study.drawn)
    on = f"on {count} input{'s' * (count > 1)}" if like else ""
    first = {"fast": fast, "between": between, "like": like, "on": on}
    return {**first, "said": _said(study), "goal": _goal(study), "caveats": caveats}


def _said(study: Study) -> str:
    fast, marks = study.speed, study.drawn[0].look.run.computed
    what = "The results are" if study.psnr is None else "The pictures are"
    alike = study.psnr is not None and statistics.fmean(study.psnr) >= ALIKE
    like = f" {what} identical to the uncached ones." if is_identical(study) else ""
    like = like or (f" {what} hard to tell apart from the uncached ones." if alike else "")
    if is_idle(study):
        return f"All {len(marks)} steps were computed.{like}" if study.plan.policies else like.strip()
    said = f"The denoiser takes {_human.seconds(fast['cached'])} instead of {_human.seconds(fast['uncached'])}"
    return f"{said}, with {study.work:.0%} of its operations and {_human.memory(study.cache_bytes)} kept.{like}"


def _goal(study: Study) -> str:
    """What a tuned plan was to reach, and what it did, on inputs that are not the page's."""
    tuned = study.plan.measured.get("tuned", {})
    if "held_out" not in tuned:
        return ""
    best = tuned["chosen"]
    said = f"It was tuned for {words.goal(tuned['goal'])}. The search found it {words.held_out(tuned)}; on those that it was, "
    said += f"{best['speedup']:.2f} times as fast and {words.decibels(best['psnr'])}."
    return f"{said} The figures above are of the inputs below."


def _short(study: Study) -> list[str]:
    """That a tuned plan has missed its goal on the inputs that it was not chosen by."""
    tuned = study.plan.measured.get("tuned", {})
    wanted, held = dict(re.findall(r"(psnr|speedup)=([\d.]+)", tuned.get("goal", ""))), tuned.get("held_out", {})
    below = []
    if held and "psnr" in wanted and held["psnr"]["mean"] < float(wanted["psnr"]):
        below.append(f"below its goal of {wanted['psnr']} dB")
    if held.get("speedup") and "speedup" in wanted and held["speedup"]["median"] < float(wanted["speedup"]) * (1 - LATE):
        below.append(f"slower than its goal of {wanted['speedup']} times as fast")
    said = f"On inputs that it was not chosen by it is {' and '.join(below)}: tune on more inputs, or ask for more."
    return [said] if below else []


def _bars(study: Study) -> list[dict[str, Any]]:
    """Where the seconds go, in percent of the longer call; room is left for the figure beside it."""
    found, names = study.seconds_in, {**CLASSES, "rest": "rest"}
    most = max(sum(parts.values()) for parts in found.values())
    rows = []
    for name, by in found.items():
        parts = [
            {"kind": names[mark], "width": 82 * seconds / most, "title": f"{BAR_WORDS[names[mark]]}: {_human.seconds(seconds)}"}
            for mark, seconds in by.items()
        ]
        rows.append({"name": name, "parts": parts, "seconds": _human.seconds(sum(by.values()))})
    return rows


def _frontier(about: About) -> dict[str, str]:
    rows = drawn(trial_rows(about.tried))
    if len(rows) < 2:
        return {}
    alt = f"Speedup against PSNR of {len(rows)} settings"
    sizes = {"wide": (880, 420), "narrow": (300, 360)}
    charts = {kind: frontier_chart(rows, *size, chosen=about.chosen) for kind, size in sizes.items()}
    return {kind: inline(vega_svg(chart), f"frontier-{kind}", alt) for kind, chart in charts.items()}


def _tried(about: About) -> str:
    every = trial_rows(about.tried)
    rows = drawn(every)
    edge = sum(row["frontier"] for row in rows)
    said = f"{len(rows)} settings were measured; nothing is both faster and closer than the {edge} on the line."
    said += f" {same(every)}" if same(every) else ""
    said += f" All figures of this chart are of {about.whose}, and so differ from those above." if about.whose else ""
    mine = next((row for row in rows if row["label"] == about.chosen), None)
    if mine is None:
        return said
    there = f"{mine['speedup']['median']:.2f} times as fast at {mine['psnr']['mean']:.1f} dB"
    return f"{said} The ring is around the plan of this page, {about.chosen}{f': {there} there' if about.whose else ''}."


def _calibration(plan: Plan) -> list[Any]:
    """The pictures of its calibration, if the plan has kept what they show."""
    enough = ({"rows"}, {"left"}, {"points", "noise", "growth", "similarity"})
    measured = plan.measured.get("omnicache-optimal", plan.measured)
    if not any(some <= measured.keys() for some in enough):
        return []
    labels = [f"input {chr(65 + i % 26)}" for i in range(len(plan.measured.get("points", ())))]
    return panels(picture_data(plan, labels))
