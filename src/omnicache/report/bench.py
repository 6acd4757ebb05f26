"""The comparison's page: first what loses to fewer steps, then the frontier, then every method and setting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from omnicache.report import _human
from omnicache.report._picture import FRAMES_A_SECOND, clips, data_uris
from omnicache.report._svg import inline, vega_svg
from omnicache.report._template import render, written
from omnicache.report.frontier_chart import LOST, frontier_chart, frontier_key, method_chart, same
from omnicache.report.verdict import ALIKE
from omnicache.words import SAME

FEW = 24
"""Rows of pictures above which fewer of them are shown in each."""


def write_bench(result: dict[str, Any], pictures: dict[str, Tensor], out: Path) -> Path:
    """Write ``out/index.html``, one file that opens without a network.

    Args:
        result: of ``omnicache bench``.
        pictures: of ``"uncached"`` and of each method's best under its label, ``(n, 3, h, w)``, or clips ``(n, f, 3, h, w)``.
        out: a folder.
    """
    rows = {row["label"]: row for row in result["rows"]}
    unit = result["unit"]
    judged = [one for one in result["methods"] if one["verdict"] != "reference"]
    judged.sort(key=lambda one: -rows[one["best"]]["speedup"]["median"])
    lost = [one for one in judged if one["verdict"] in LOST]
    charts = {}
    for kind, (width, height) in {"wide": (880, 460), "narrow": (300, 380)}.items():
        charts[kind] = inline(vega_svg(frontier_chart(result["rows"], width, height)), f"frontier-{kind}", _words(result["rows"]))
    small = [
        {
            "name": one["method"],
            "verdict": one["verdict"],
            "said": _said(one),
            "svg": inline(vega_svg(method_chart(one["method"], result["rows"])), f"m{i}", f"{one['method']}: {_said(one)}"),
        }
        for i, one in enumerate(judged)
    ]
    setting = [f"{result['steps']} steps"] + [f"guidance {result['guidance']:g}"] * (result["guidance"] is not None)
    setting += [f"{result['samples']} {unit}s", f"batches of {result['batch']}", f"measured on {result['device']}"]
    setting += [f"load average {', '.join(f'{v:g}' for v in result['load_average'])}"] * bool(result["load_average"])
    references = [one for one in result["rows"] if one["method"] in ("fewer-steps", "none")]
    page = render(
        "bench.html.j2",
        model=result["model"],
        setting=" · ".join(setting),
        headline=_headline(len(lost), len(judged)),
        best=_best(result, rows),
        lost=[_shown(rows[one["best"]], one) for one in lost],
        others=[_shown(rows[one["best"]], one) for one in judged if one not in lost],
        references=[_shown(row) for row in references],
        every=[_shown(row) for row in sorted(result["rows"], key=lambda row: (row["method"], row["speedup"]["median"]))],
        uncached=_uncached(result),
        has_kid=any(row.get("kid") for row in result["rows"]),
        charts=charts,
        same=same(result["rows"]),
        chart_key=frontier_key(result["rows"]),
        small=small,
        partly=[one for one in judged if one not in lost and one["worse"]],
        memory=[
            {"name": one["method"], "best": one["best"], "bytes": [_human.memory(b) for b in one["memory"]]}
            for one in sorted(judged, key=lambda one: one["method"])
            if one["memory"]
        ],
        sides=result["sides"],
        columns=max(6, min(8, len(pictures["uncached"]))),
        pictures=data_uris(pictures, most=8 if len(pictures) <= FEW else 4),
        size=tuple(pictures["uncached"].shape[-2:]),
        frames=clips(pictures["uncached"]).shape[1],
        duration=1000 // FRAMES_A_SECOND,
        crisp=max(pictures["uncached"].shape[-2:]) <= 128,
        unit=unit,
        quick=result["quick"],
        first=result["first"],
        samples=result["samples"],
        took=f"{result['seconds'] / 60:.0f} minutes" if result["seconds"] > 90 else _human.seconds(result["seconds"]),
        skipped=result["skipped"],
        refused=result["refused"],
        left_out=result["left_out"],
        command=result.get("command") or "omnicache bench",
    )
    return written(page, out)


def _headline(lost: int, judged: int) -> str:
    if not judged:
        return "No method was measured"
    if not lost:
        return "No method loses to taking fewer steps" if judged > 1 else "It does not lose to taking fewer steps"
    if lost == judged:
        return "Taking fewer steps beats every method" if judged > 1 else "Taking fewer steps beats it"
    return f"{lost} of {judged} methods {'loses' if lost == 1 else 'lose'} to taking fewer steps"


def _best(result: dict[str, Any], rows: dict[str, dict[str, Any]]) -> str:
    """A sentence on the fastest setting whose pictures are hard to tell apart from the uncached."""
    closely = any(row["closely"] for row in rows.values())
    seen = [row for row in rows.values() if row["closely"] == closely and row["psnr"]["low"] >= ALIKE and row["method"] != "none"]
    fewer = max((r for r in seen if r["method"] == "fewer-steps"), key=lambda r: r["speedup"]["median"], default=None)
    caches = [row for row in seen if row["method"] != "fewer-steps" and row["verdict"] not in LOST]
    if not caches:
        return f"No cached setting is sure to be hard to tell apart from the uncached {result['unit']}s ({ALIKE:g} dB)."
    best = max(caches, key=lambda row: row["speedup"]["median"])
    said = f"The fastest setting that stays hard to tell apart from the uncached {result['unit']}s is {best['label']}: "
    said += f"{_human.times(best['speedup']['median'])} at {_decibels(best)}."
    if fewer:
        said += f" Of fewer steps it is {_human.times(fewer['speedup']['median'])} at {_decibels(fewer)}."
    return said


def _decibels(row: dict[str, Any]) -> str:
    return _human.decibels(row["psnr"]["mean"])


def _said(one: dict[str, Any]) -> str:
    """What came of a method's settings."""
    count, worse = one["settings"], one["worse"]
    if one["verdict"] == "slower":
        return "slower than without a cache"
    if count == 1:
        return {"worse": "worse", "better": "better", "even": "not told apart", "beyond": "faster than any fewer steps"}[
            one["verdict"]
        ]
    return f"{worse} of {count} settings worse" if worse else f"none of {count} settings worse"


def _shown(row: dict[str, Any], method: dict[str, Any] | None = None) -> dict[str, Any]:
    """A row in words."""
    equal, kid, verdict = row["psnr"]["mean"] >= SAME, row.get("kid"), row["verdict"]
    above = row.get("kid_above")
    ahead = row["lead"] if verdict != "reference" else None
    return {
        "label": row["label"],
        "verdict": verdict,
        "settings": _said(method) if method else "",
        "speedup": _human.times(row["speedup"]["median"]),
        "speed_span": _span(row["speedup"], 2) if row["pairs"] > 1 else "",
        "psnr": _human.decibel(row["psnr"]["mean"]),
        "psnr_span": "" if equal else _span(row["psnr"], 1),
        "lead": f"{ahead['mean']:+.1f}" if ahead else "",
        "lead_span": _span(ahead, 1, signed=True) if ahead else "",
        "fewer": f"{ahead['fewer']:.1f}" if ahead else "",
        "ssim": f"{row['ssim']['mean']:.3f}",
        "kid": f"{1000 * kid['mean']:.1f}" if kid else _human.MISSING,
        "kid_above": f"{1000 * above['mean']:+.1f}" if above else "",
        "kid_span": _span(above, 1, 1000, signed=True) if above else "",
        "recognised": _human.percent(row["recognised"]["mean"]),
        "compute": _human.percent(row["compute_fraction"]),
        "memory": _human.memory(row["cache_bytes"]),
        "samples": row["samples"],
        "closely": row["closely"],
        "frontier": row["frontier"],
        "note": row["note"],
    }


def _uncached(result: dict[str, Any]) -> dict[str, str]:
    """Figures of the uncached samples."""
    known = result["uncached"]
    kid, right = known.get("kid"), known["recognised"]
    share = right["mean"] if isinstance(right, dict) else right
    return {
        "kid": f"{1000 * kid['mean']:.1f}" if kid else _human.MISSING,
        "kid_span": _span(kid, 1, 1000) if kid else "",
        "recognised": _human.percent(share),
    }


def _span(found: dict[str, float], digits: int, times: float = 1.0, signed: bool = False) -> str:
    low, high = (f"{times * found[end]:{'+' if signed else ''}.{digits}f}" for end in ("low", "high"))
    return f"{low} to {high}"


def _words(rows: list[dict[str, Any]]) -> str:
    edge = [row for row in rows if row["frontier"]]
    said = [f"{row['label']} {_human.times(row['speedup']['median'])} at {_decibels(row)}" for row in edge]
    return "Speedup against PSNR; nothing is both faster and closer than: " + ", ".join(said)
