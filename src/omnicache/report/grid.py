"""The demo's pictures, or some frames of its clips, as one labelled image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from omnicache.report import _human
from omnicache.report._fonts import font
from omnicache.report._need import need
from omnicache.report._picture import check, to_image
from omnicache.report.run import Run

COLUMNS, FRAMES = 8, 4
TILE = (112, 224)  # smallest and largest width of a picture


def write_grid(pictures: dict[str, Tensor], result: dict[str, Any], path: Path) -> Path:
    """Write a PNG with a row of up to eight pictures for each method, the uncached ones first; or of frames, for clips."""
    image_type, draw_type = need("PIL.Image"), need("PIL.ImageDraw")
    check(pictures)
    path = Path(path)
    baseline = (result.get("baseline") or {}).get("seconds")
    rows = [("uncached", _human.seconds(baseline) if baseline is not None else "")]
    for run in Run.all(result):
        if run.name in pictures:
            speed = _human.times(run.speedup).replace("×", "x")  # the font has no multiplication sign
            rows.append((run.name, f"{speed}   {_human.decibels(run.psnr)}"))
    shown = {name: _stills(batch) for name, batch in pictures.items()}
    _, _, h, w = shown["uncached"].shape
    zoom = max(1, -(-TILE[0] // w)) if w < TILE[0] else min(1.0, TILE[1] / w)
    tile = (round(w * zoom), round(h * zoom))
    how = image_type.Resampling.NEAREST if zoom >= 1 else image_type.Resampling.LANCZOS
    columns = len(shown["uncached"])
    gap, pad = 4, 24
    measure = draw_type.Draw(image_type.new("RGB", (1, 1)))
    label = 24 + max(
        int(measure.textlength(text, font=font(size))) for row in rows for text, size in zip(row, (22, 20), strict=True)
    )
    size = (2 * pad + label + columns * (tile[0] + gap), 2 * pad + len(rows) * (max(tile[1], 60) + gap))
    sheet = image_type.new("RGB", size, "#ffffff")
    draw = draw_type.Draw(sheet)
    for y, (name, figures) in enumerate(rows):
        top = pad + y * (max(tile[1], 60) + gap)
        middle = top + tile[1] / 2
        draw.text((pad, middle - 2), name, font=font(22), fill="#1b1c1f", anchor="ls" if figures else "lm")
        draw.text((pad, middle + 8), figures, font=font(20), fill="#5b6067", anchor="la")
        for x, picture in enumerate(shown[name]):
            sheet.paste(to_image(picture).resize(tile, how), (pad + label + x * (tile[0] + gap), top))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, optimize=True)
    return path


def _stills(batch: Tensor) -> Tensor:
    """Up to eight pictures; of clips, four frames of each, evenly taken."""
    if batch.ndim == 4:
        return batch[:COLUMNS]
    every = [i * batch.shape[1] // FRAMES for i in range(FRAMES)]
    return batch[: COLUMNS // FRAMES, every].flatten(0, 1)
