"""The demo's page: what was gained, how it looks, and what every figure rests on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from omnicache.report import _human
from omnicache.report._panels import panels
from omnicache.report._picture import FRAMES_A_SECOND, check, clips, data_uris
from omnicache.report._svg import inline, variable, vega_svg
from omnicache.report._template import render, written
from omnicache.report.fewer_steps import FewerSteps
from omnicache.report.run import Run
from omnicache.report.speed_chart import speed_chart, speed_key
from omnicache.report.strip import CLASSES, WORDS, Strip
from omnicache.report.verdict import ALIKE, Verdict
from omnicache.words import SAME

ALIKE_PATHS = 0.9  # similarity of the least alike pair above which the paths are said to share a shape


def write_page(result: dict[str, Any], pictures: dict[str, Tensor], out: Path, calibration: dict[str, Any] | None = None) -> Path:
    """Write ``out/index.html``, one file that opens without a network.

    ``pictures`` holds those of ``"uncached"`` and of each run under its label, or its method where it has no label: pictures
    ``(n, 3, h, w)``, or clips ``(n, f, 3, h, w)``, which the page plays.
    """
    check(pictures)
    runs = Run.all(result)
    verdict = Verdict.of(result, runs)
    reference = FewerSteps(runs)
    steps = int(result.get("steps") or 1)
    base = result.get("baseline") or {}
    uncached = Strip("#" * steps, steps)
    rows = [
        {
            "name": run.name,
            "options": "" if run.options and run.options in run.name else run.options,
            "note": ". ".join(part for part in ("nothing was reused" * run.is_idle, run.note) if part),
            "seconds": _human.seconds(run.seconds),
            "speedup": _human.times(run.speedup),
            "spread": _human.spread(run.spread),
            "compute": _human.percent(run.compute),
            "psnr": _human.decibel(run.psnr),
            "decibels": _human.decibels(run.psnr),
            "ssim": _human.three_digits(run.ssim),
            "accuracy": _human.percent(run.accuracy),
            "memory": _human.memory(run.cache_bytes),
            "strip": Strip(run.computed, steps),
            "beaten": _human.decibels(reference.psnr_at_speed(run.speedup)) if reference.beats(run) else "",
            "best": verdict.best is not None and run.name == verdict.best.name,
            "reference": not run.is_cache,
        }
        for run in runs
    ]
    shown = {name: batch for name, batch in pictures.items() if name == "uncached" or any(row["name"] == name for row in rows)}
    charts = {}
    for kind, (width, height) in {"wide": (880, 420), "narrow": (300, 360)}.items():
        chart = speed_chart(runs, verdict.best, width, height)
        if chart is not None:
            charts[kind] = inline(vega_svg(chart), f"speed-{kind}", _chart_words(runs))
    kinds = {kind for strip in (uncached, *(row["strip"] for row in rows)) for kind in strip.kinds}
    unit = str(result.get("unit") or "picture")
    worded = {"steps": "{} steps", "guidance": "guidance {}", "images": f"{{}} {unit}s"}
    setting = [words.format(_human.plain(result[key])) for key, words in worded.items() if result.get(key) is not None]
    load = ", ".join(_human.plain(float(value)) for value in result.get("load_average") or [])
    page = render(
        "page.html.j2",
        model=result.get("model", ""),
        setting=" · ".join(setting),
        device=result.get("device", ""),
        load=load,
        verdict=verdict,
        rows=rows,
        base={
            "seconds": _human.seconds(base.get("seconds")),
            "accuracy": _human.percent(base.get("class_accuracy")),
            "strip": uncached,
        },
        has_accuracy=base.get("class_accuracy") is not None or any(run.accuracy is not None for run in runs),
        images=int(result.get("images") or 0),
        pictures=data_uris(shown),
        unit=unit,
        frames=clips(pictures["uncached"]).shape[1],
        duration=1000 // FRAMES_A_SECOND,
        size=tuple(pictures["uncached"].shape[-2:]),
        columns=min(8, len(pictures["uncached"])),
        crisp=max(pictures["uncached"].shape[-2:]) <= 128,
        charts=charts,
        chart_key=speed_key(runs, verdict.best) if charts else [],
        alike_from=f"{ALIKE:g}",
        identical=[run.name for run in runs if run.psnr is not None and run.psnr >= SAME],
        key=[(CLASSES[kind], WORDS[kind]) for kind in "#o?." if kind in kinds],
        ticks=Strip.ticks(steps),
        variable=variable,
        alike=_alike_words(calibration["similarity"]) if calibration else "",
        panels=panels(calibration) if calibration else [],
        skipped=[{"method": str(one["method"]), "why": str(one.get("why", ""))} for one in result.get("skipped") or []],
        command=result.get("command") or "omnicache demo",
    )
    return written(page, out)


def _alike_words(similarity: list[list[float]]) -> str:
    apart = [float(v) for i, row in enumerate(similarity) for j, v in enumerate(row) if i != j]
    if apart and min(apart) >= ALIKE_PATHS:
        return "They have much the same shape whatever is asked for, so one calibration serves all."
    return "The less alike these are, the less one calibration can serve every input."


def _chart_words(runs: list[Run]) -> str:
    said = [f"{run.name} {_human.times(run.speedup)} at {_human.decibels(run.psnr)}" for run in runs]
    return "Speedup against PSNR: " + ", ".join(said)
