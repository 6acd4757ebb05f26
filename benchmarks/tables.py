"""Figures of ``multidimensional.py`` as Markdown, and what they say of the paper's claims."""

from __future__ import annotations

import itertools
from typing import Any

import torch

from omnicache.guards import human_bytes
from omnicache.measure.quality import mean95

CLAIMS = {
    "placement: S2T-T2S": ("placement: S2S-T2T",),
    "fill, tokens: tokens, cached value": (
        "fill, tokens: tokens, averaged and copied (ToMeSD)",
        "fill, tokens: tokens, interpolated",
        "fill, tokens: tokens, copy of the match",
    ),
    "fill, frames: frames, cached value": ("fill, frames: frames, interpolated", "fill, frames: frames, copy of the match"),
}
"""What should be better than what, by PSNR to the uncached samples of the same seeds."""


def markdown(record: dict[str, Any]) -> str:
    """All tables of one model."""
    rows, unit = record["rows"], record["unit"]
    base = record.get("uncached", {})
    threads = {str(r["speed"]["threads"]) for r in rows.values() if "threads" in r.get("speed", {})}
    on = f"{record['device'].split(',')[0]}, speed with {' or '.join(sorted(threads)) or 'no'} threads"
    lines = [
        f"# {record['model']} ({record['class']})",
        "",
        f"{record['steps']} steps, guidance {record['guidance'] or 'none'}, {base.get('samples', 0)} {unit}s (of the experiments, "
        f"every table but the first, each fourth), {on}, "
        f"torch {record['torch']}, {record['when']}. Speed is that of the denoiser, a median of interleaved pairs; everything with "
        "its 95 % interval. PSNR and SSIM are to the uncached samples of the same seeds, KID to uncached samples of other seeds in "
        "the features of the model's judge. The same labels are in both sets, which moves them all by a constant: what counts is "
        "how far a row is above the uncached samples (with an interval where that was worked out pair by pair). "
        f"Energy is what {record['watts']:g} W would take in the denoiser's time.",
        "",
    ]
    for group in dict.fromkeys(r["group"] for r in rows.values()):
        lines += [f"## {group[0].upper()}{group[1:]}", "", *_table(record, [r for r in rows.values() if r["group"] == group]), ""]
    found = [*_claims(rows), *_together(rows)]
    if found:
        lines += ["## What follows", "", *(f"- {line}" for line in found), ""]
    return "\n".join(lines)


def watt_hours(seconds: float, watts: float) -> float:
    """Energy of so many seconds, in Wh: the paper's estimate (appendix C), which takes the power to be the same throughout."""
    return seconds * watts / 3600


def _table(record: dict[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    film = record["unit"] == "clip"
    head = ["method", "ratio", "speedup", "s", "Wh per 1000", "PSNR (dB)", "SSIM", "KID x 1000"]
    head += ["above uncached", "recognised", "kept"]
    head += ["obeys its law", "centre off", "turn off", "size off", "change"] * film
    made = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    base = record.get("uncached", {})
    speeds = [r["speed"] for r in rows if "speed" in r]
    plain = {"speed": {"cached": min(s["uncached"] for s in speeds), "at_once": speeds[0]["at_once"]}} if speeds else {}
    for row in [{"label": "uncached", "ratio": "", "quality": base, **plain}, *rows]:
        q, s = row.get("quality", {}), row.get("speed", {})
        seconds = s["cached"] / s["at_once"] if s else None
        cells = [row["label"], row["ratio"]]
        cells += [_span(s["speedup"], 2) if "speedup" in s else "1" if s else ""]
        cells += [f"{seconds:.2f}", f"{watt_hours(1000 * seconds, record['watts']):.0f}"] if seconds else ["", ""]
        few = q.get("samples", 0) < base.get("samples", 0)  # an experiment's, too few for a distribution
        cells += [_span(q.get("psnr"), 1), _span(q.get("ssim"), 3), "" if few else _span(q.get("kid"), 1, 1000)]
        cells += ["" if few or row["label"] == "uncached" else _span(q.get("kid_above"), 1, 1000) or _above(q, base)]
        cells += [_span(q.get("recognised"), 2)]
        cells += [human_bytes(q["cache_bytes"]) if q.get("cache_bytes") else ""]
        if film:
            m = q.get("motion", {})
            cells += [_span(m.get("obeys"), 2), _span(m.get("centre"), 3), _span(m.get("turn"), 2), _span(m.get("size"), 3)]
            cells += [_span(m.get("change"), 2)]
        made.append("| " + " | ".join(cells) + " |")
    return made


def _above(figures: dict[str, Any], base: dict[str, Any]) -> str:
    return f"{1000 * (figures['kid']['mean'] - base['kid']['mean']):.1f}" if "kid" in figures and "kid" in base else ""


def _span(found: dict[str, float] | None, digits: int, times: float = 1.0) -> str:
    if not found:
        return ""
    middle = found.get("mean", found.get("median", 0.0))
    return f"{times * middle:.{digits}f} [{times * found['low']:.{digits}f}, {times * found['high']:.{digits}f}]"


def _claims(rows: dict[str, Any]) -> list[str]:
    """Of each claim the difference in PSNR, sample by sample, and whether it is sure."""
    lines = []
    for better, others in CLAIMS.items():
        for other in others:
            if not all("quality" in rows.get(key, {}) for key in (better, other)):
                continue
            a, b = _same(*(rows[key]["quality"]["psnr_each"] for key in (better, other)))
            found = mean95(a - b)
            verdict = "holds" if found["low"] > 0 else "is refuted" if found["high"] < 0 else "is not decided"
            gap = _span(found, 2)
            lines.append(f"{rows[better]['label']} is better than {rows[other]['label']}: {verdict} ({gap} dB, same seeds).")
    return lines


def _same(a: list[float], b: list[float]) -> tuple[torch.Tensor, torch.Tensor]:
    """What two rows say of the inputs of both, where one of them was drawn for every so-manieth input."""
    count = min(len(a), len(b))
    first, second = (torch.tensor(one[:: len(one) // count]) for one in (a, b))
    return first, second


def _together(rows: dict[str, Any]) -> list[str]:
    """Rows and layers together against layers alone, at the same measured speedup."""
    alone = sorted(_points(r for r in rows.values() if r["label"].startswith("layered")))
    lines = []
    for row in rows.values():
        if " + layered" not in row["label"] or not (points := _points([row])):
            continue
        ((speed, quality),) = points
        at = _between(alone, speed)
        if at is None:
            span = f"{alone[0][0]:.2f}x to {alone[-1][0]:.2f}x" if alone else "nowhere"
            lines.append(f"{row['label']}: {quality:.1f} dB at {speed:.2f}x, where layers alone were not measured ({span}).")
        else:
            lines.append(f"{row['label']}: {quality:.1f} dB at {speed:.2f}x; layers alone give {at:.1f} dB there.")
    return lines


def _points(rows: Any) -> list[tuple[float, float]]:
    return [(r["speed"]["speedup"]["median"], r["quality"]["psnr"]["mean"]) for r in rows if "speed" in r and "quality" in r]


def _between(points: list[tuple[float, float]], at: float) -> float | None:
    for (x, a), (y, b) in itertools.pairwise(points):
        if x <= at <= y:
            return a + (b - a) * (at - x) / (y - x) if y > x else max(a, b)
    return None
