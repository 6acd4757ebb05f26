"""The pictures of a calibration: paths, their similarity, curvature, gamma, and the steps chosen for reuse."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from omnicache.plan import Plan
from omnicache.report._fonts import font
from omnicache.report._need import need
from omnicache.report._panels import panels
from omnicache.report._svg import COLOURS


def write_calibration(calibration: dict[str, Any], path: Path) -> Path:
    """Write the calibration's pictures as one PNG."""
    image_type, draw_type = need("PIL.Image"), need("PIL.ImageDraw")
    path = Path(path)
    shown = panels(calibration)
    width, pad, head = 940, 40, 74
    pictures = []
    for panel in shown:
        picture = image_type.open(io.BytesIO(panel.png())).convert("RGBA")
        scale = min(width / picture.width, 900 / picture.height)
        size = (round(picture.width * scale), round(picture.height * scale))
        pictures.append(picture.resize(size, image_type.Resampling.LANCZOS))
    pairs = [list(range(i, min(i + 2, len(shown)))) for i in range(0, len(shown), 2)]
    heights = [head + max(pictures[i].height for i in pair) for pair in pairs]
    sheet = image_type.new("RGB", (2 * width + 3 * pad, sum(heights) + pad * (len(pairs) + 1)), COLOURS["ground"])
    draw = draw_type.Draw(sheet)
    top = pad
    for pair, height in zip(pairs, heights, strict=True):
        for column, i in enumerate(pair):
            left = pad + column * (width + pad)
            draw.text((left, top), shown[i].title, font=font(30), fill=COLOURS["ink"])
            x = left
            for name, colour in shown[i].key.items():
                draw.ellipse((x, top + 49, x + 14, top + 63), fill=colour)
                draw.text((x + 22, top + 43), name, font=font(21), fill=COLOURS["muted"])
                x += 22 + int(draw.textlength(name, font=font(21))) + 28
            picture = pictures[i]
            sheet.paste(picture, (left + (width - picture.width) // 2, top + head), picture)
        top += height + pad
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
    return path


def picture_data(plan: Plan, labels: list[str]) -> dict[str, Any]:
    """What the calibration pictures show, from a plan's measurements."""
    measured = plan.measured.get("omnicache-optimal", plan.measured)  # of several methods, what the one has measured
    if "rows" in measured:
        return {key: measured[key] for key in ("rows", "weight", "lat", "saved")}
    if "left" in measured:
        return {key: measured[key] for key in ("schedule", "left", "growth", "tried")}
    growth = measured["growth"]  # empty where the schedule was not chosen by error
    error = [n * g or None for n, g in zip(measured["noise"], growth, strict=True)] if growth else None
    return {
        "error": error,
        "points": measured["points"],
        "labels": labels,
        "similarity": measured["similarity"],
        "curvature": measured["curvature"],
        "gamma": measured["gamma"],
        "schedule": measured["schedule"],
    }
