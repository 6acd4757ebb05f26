"""The demo's clips side by side, as one animation."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from torch import Tensor

from omnicache.report import _human
from omnicache.report._fonts import font
from omnicache.report._need import need
from omnicache.report._picture import FRAMES_A_SECOND, check, to_image
from omnicache.report.run import Run

ROWS = 8
TILE = 128  # pixels: the smallest width of a clip, which is enlarged by whole numbers
GAP, PAD, LINE = 4, 16, 19
INK, MUTED, GROUND = "#1b1c1f", "#5b6067", "#ffffff"


def write_clips(clips: dict[str, Tensor], result: dict[str, Any], path: Path) -> Path:
    """Write a row for each of up to eight inputs and a column for each method, the uncached clips first, all playing in step.

    ``clips`` holds ``(n, f, 3, h, w)`` in [0, 1] of ``"uncached"`` and of each run under its label; ``result["inputs"]`` names the
    rows. The ending of ``path`` says what is written: GIF, in 256 colours, or WebP.
    """
    check(clips)
    base, path = clips["uncached"][:ROWS], Path(path)
    zoom = max(1, -(-TILE // base.shape[-1]))
    tile = (base.shape[-1] * zoom, base.shape[-2] * zoom)
    columns = [("uncached", ""), *((run.name, _figures(run)) for run in Run.all(result) if run.name in clips)]
    heads = [
        [(line, INK) for line in _wrapped(name, tile[0] - 2 * GAP)] + [(line, MUTED) for line in figures.split("\n")]
        for name, figures in columns
    ]
    names = [_wrapped(str(name), TILE) for name in (result.get("inputs") or [""] * len(base))[: len(base)]]
    left = PAD + max(_width(line) for lines in names for line in lines) + 12
    top = PAD + LINE * max(map(len, heads)) + 6
    size = (left + len(columns) * (tile[0] + GAP) - GAP + PAD, top + len(base) * (tile[1] + GAP) - GAP + PAD)
    sheet = need("PIL.Image").new("RGB", size, GROUND)
    draw = need("PIL.ImageDraw").Draw(sheet)
    for x, lines in enumerate(heads):
        for y, (line, colour) in enumerate(lines):
            draw.text((left + x * (tile[0] + GAP), PAD + y * LINE), line, font=font(15), fill=colour)
    for y, lines in enumerate(names):
        middle = top + y * (tile[1] + GAP) + (tile[1] - LINE * len(lines)) // 2
        for i, line in enumerate(lines):
            draw.text((PAD, middle + i * LINE), line, font=font(15), fill=INK)
    frames = []
    for i in range(base.shape[1]):
        frame = sheet.copy()
        for x, (name, _) in enumerate(columns):
            for y, clip in enumerate(clips[name][:ROWS]):
                picture = to_image(clip[i]).resize(tile, need("PIL.Image").Resampling.NEAREST)
                frame.paste(picture, (left + x * (tile[0] + GAP), top + y * (tile[1] + GAP)))
        frames.append(frame)
    path.parent.mkdir(parents=True, exist_ok=True)
    _save(frames, path)
    return path


def _save(frames: list[Any], path: Path) -> None:
    playing = {"save_all": True, "duration": 1000 // FRAMES_A_SECOND, "loop": 0}
    if path.suffix == ".webp":
        frames[0].save(path, append_images=frames[1:], quality=85, method=4, **playing)
        return
    # One palette for all frames, and no dithering: either would make what stands still flicker.
    image_type = need("PIL.Image")
    half = (frames[0].width // 2, frames[0].height // 2)
    every = image_type.new("RGB", (half[0], half[1] * len(frames)))
    for i, frame in enumerate(frames):
        every.paste(frame.resize(half, image_type.Resampling.NEAREST), (0, i * half[1]))
    palette = every.quantize(256, image_type.Quantize.MEDIANCUT)
    reduced = [frame.quantize(palette=palette, dither=image_type.Dither.NONE) for frame in frames]
    reduced[0].save(path, append_images=reduced[1:], optimize=False, **playing)


def _figures(run: Run) -> str:
    return f"{_human.times(run.speedup)}\n{_human.decibels(run.psnr)}".replace("×", "x")  # the font has no multiplication sign


def _width(text: str) -> int:
    return int(font(15).getlength(text)) + 1


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of at most ``width`` pixels, broken after spaces and hyphens where there are such."""
    lines = [""]
    for word in re.findall(r"[^\s-]*[\s-]?", text):
        if lines[-1] and _width(lines[-1] + word.rstrip()) > width:
            lines.append("")
        lines[-1] += word
    return [line.rstrip() for line in lines]
