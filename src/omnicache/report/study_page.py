"""The page about one plan: the answer first, then how it looks, where time and error come from, and how to do it again."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from omnicache.measure.diagnosis import LIKE, Diagnosis
from omnicache.measure.study import Study
from omnicache.plan import Plan
from omnicache.report import _human
from omnicache.report._panels import panels
from omnicache.report._picture import FRAMES_A_SECOND, clips, data_uris
from omnicache.report._study_panels import error_panels, layer_panels, memory_panel, path_panel
from omnicache.report._svg import inline, variable, vega_svg
from omnicache.report._template import render, written
from omnicache.report.calibration import picture_data
from omnicache.report.frontier_chart import frontier_chart
from omnicache.report.strip import CLASSES, WORDS, Strip
from omnicache.report.trials import trial_rows
from omnicache.report.words import clauses, glosses, told


@dataclass(frozen=True)
class About:
    """What a page says besides the study.

    Attributes:
        model: its name.
        setting: what it was measured with, in words.
        command: what to type to do it again.
        tried: other settings, ``{"label", "speedup", "psnr"}``.
        chosen: the label of the one that the page is about.
    """

    model: str
    setting: Sequence[str] = ()
    command: str = ""
    tried: Sequence[Mapping[str, Any]] = ()
    chosen: str = ""


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
        title=_title(study),
        model=about.model,
        method=study.plan.method,
        answer=_answer(study),
        setting=" · ".join(about.setting),
        pictures=[
            {"label": one.label, "psnr": _decibel(one.psnr), "uncached": a, "cached": b}
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
        calibration=_calibration(study.plan),
        variable=variable,
        words=clauses(study.plan),
        glosses=glosses(study.plan),
        options=[f"{name} = {told(value)}" for name, value in study.plan.options.items() if value is not None],
        made_for=", ".join(f"{name} {_human.plain(value)}" for name, value in study.plan.made_for.items()),
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


def _title(study: Study) -> str:
    return ", ".join(part for part in (f"{study.speedup:.2f} times as fast", _decibel(_mean(study))) if part)


def _mean(study: Study) -> float | None:
    return None if study.psnr is None else statistics.fmean(study.psnr)


def _decibel(psnr: float | None) -> str:
    return "" if psnr is None else "identical" if psnr > 99 else f"{psnr:.1f} dB"


def _answer(study: Study) -> dict[str, Any]:
    """The page's first lines."""
    ratio, pairs, mean = study.speed["speedup"], study.speed["pairs"], _mean(study)
    between = f"({ratio['low']:.2f} to {ratio['high']:.2f}, {pairs} pairs)" if pairs > 1 else "(one pair)"
    ends = [one.end for one in study.drawn if one.end is not None]
    like = _decibel(mean) or (f"latents {statistics.fmean(ends):.1%} off" if ends else "")
    caveats = []
    if ratio["median"] < 1:
        caveats.append("It is slower than without a cache: leave it off, or take another method.")
    elif ratio["low"] < 1 < ratio["high"]:
        caveats.append("Some pairs were slower than without a cache, so the gain is not sure.")
    if mean is not None and mean < LIKE:
        caveats.append(f"It looks different: below {LIKE:g} dB people can tell such pictures from the uncached ones.")
    if "." not in (marks := study.drawn[0].look.run.computed) and not {"o", "?"} & set(marks) and study.plan.policies:
        caveats.append("Nothing was reused.")
    fast = f"{ratio['median']:.2f} times as fast"
    return {"fast": fast, "between": between, "like": like, "said": _said(study), "caveats": caveats}


def _said(study: Study) -> str:
    fast, mean, kept = study.speed, _mean(study), _human.memory(study.cache_bytes)
    said = f"The denoiser takes {_human.seconds(fast['cached'])} instead of {_human.seconds(fast['uncached'])}"
    said += f", with {study.work:.0%} of its operations and {kept} kept."
    if mean is not None and mean >= LIKE:
        said += " The results are the same." if mean > 99 else " The results are hard to tell apart from the uncached ones."
    return said


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
    rows = trial_rows(about.tried)
    if len(rows) < 2:
        return {}
    alt = f"Speedup against PSNR of {len(rows)} settings"
    sizes = {"wide": (880, 420), "narrow": (300, 360)}
    drawn = {kind: frontier_chart(rows, *size, chosen=about.chosen) for kind, size in sizes.items()}
    return {kind: inline(vega_svg(chart), f"frontier-{kind}", alt) for kind, chart in drawn.items()}


def _tried(about: About) -> str:
    rows = trial_rows(about.tried)
    edge = sum(row["frontier"] for row in rows)
    said = f"{len(rows)} settings were measured; nothing is both faster and closer than the {edge} on the line."
    said += " Dashed is what fewer steps give." if any(row["method"] == "fewer-steps" for row in rows) else ""
    return said + (f" The ring is around the one of this page: {about.chosen}." if about.chosen else "")


def _calibration(plan: Plan) -> list[Any]:
    """The pictures of its calibration, if the plan has kept what they show."""
    if "rows" not in plan.measured and not {"points", "noise", "growth", "similarity"} <= plan.measured.keys():
        return []
    labels = [f"input {chr(65 + i % 26)}" for i in range(len(plan.measured.get("points", ())))]
    return panels(picture_data(plan, labels))
