"""The demo's clips: one animation of all methods, the page that plays them, and the grid that shows some of their frames."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from omnicache.report import write_clips, write_grid, write_page
from omnicache.report.clips import GAP, PAD, TILE

from .test_page import demo, headline, names

for package in ("altair", "jinja2", "matplotlib", "vl_convert"):
    pytest.importorskip(package, reason=f'{package} is not installed: pip install "omnicache[report]"')

FRAMES, SIDE = 8, 16
ORDER = ["uncached", "speca", "omnicache-trajectory", "toca", "fewer-steps @ 0.5", "fewer-steps @ 0.7", "none"]


def result() -> dict[str, Any]:
    return demo() | {"unit": "clip", "images": 10, "inputs": [f"lion spinning {i}" for i in range(10)]}


def colour(name: str, row: int, frame: int) -> list[float]:
    return [ORDER.index(name) / 6, row / 9, frame / 7]


def clips(n: int = 10) -> dict[str, Tensor]:
    """Each frame has one colour, which no other has."""
    found = {}
    for name in ORDER:
        plain = torch.tensor([[colour(name, row, frame) for frame in range(FRAMES)] for row in range(n)])
        found[name] = plain[..., None, None].expand(-1, -1, -1, SIDE, SIDE)
    return found


@pytest.mark.parametrize(("ending", "off"), [("gif", 40), ("webp", 12)])
def test_a_row_for_each_input_and_a_column_for_each_method_play_in_step(tmp_path: Path, ending: str, off: int) -> None:
    path = write_clips(clips(), result(), tmp_path / "new" / f"clips.{ending}")
    shown = Image.open(path)
    assert shown.n_frames == FRAMES and shown.info["loop"] == 0
    right, bottom = shown.width - PAD, shown.height - PAD
    for frame in range(FRAMES):
        shown.seek(frame)
        pixels = shown.convert("RGB")
        assert 120 <= shown.info["duration"] <= 125
        for column, name in enumerate(ORDER):
            for row in (0, 3, 7):  # at most eight inputs are shown
                x = right - (len(ORDER) - column) * (TILE + GAP) + GAP + TILE // 2
                y = bottom - (8 - row) * (TILE + GAP) + GAP + TILE // 2
                seen, wanted = pixels.getpixel((x, y)), [round(255 * v) for v in colour(name, row, frame)]
                assert max(abs(a - b) for a, b in zip(seen, wanted, strict=True)) <= off, (name, row, frame)


def test_the_rows_and_columns_are_named(tmp_path: Path) -> None:
    one = {name: batch[:2] for name, batch in clips().items()}
    bare = write_clips(one, result() | {"inputs": None}, tmp_path / "bare.gif")
    named = write_clips(one, result(), tmp_path / "named.gif")
    picture, without = (Image.open(path).convert("L") for path in (named, bare))
    assert picture.width > without.width + 40  # room for the names of the rows
    left = picture.width - PAD - len(ORDER) * (TILE + GAP) + GAP
    top = picture.height - PAD - 2 * (TILE + GAP) + GAP
    assert min(picture.crop((0, top, left, picture.height)).tobytes()) < 100
    for column in range(len(ORDER)):
        head = picture.crop((left + column * (TILE + GAP), 0, left + column * (TILE + GAP) + TILE, top))
        assert min(head.tobytes()) < 100, ORDER[column]
        gap = picture.crop((left + column * (TILE + GAP) + TILE, 0, left + (column + 1) * (TILE + GAP), top))
        assert min(gap.tobytes()) > 200, f"{ORDER[column]} runs into the next"


def strips(page: str, name: str) -> list[Image.Image]:
    found = re.findall(rf'<img src="data:image/webp;base64,([^"]+)" alt="Clip \d, {re.escape(name)}">', page)
    return [Image.open(io.BytesIO(base64.b64decode(one))).convert("RGB") for one in found]


def test_the_page_holds_all_frames_of_each_clip_side_by_side_and_plays_them(tmp_path: Path) -> None:
    page = write_page(result(), clips(), tmp_path).read_text(encoding="utf-8")
    for name in ("uncached", *names(result())):
        found = strips(page, name)
        assert len(found) == 8 and {one.size for one in found} == {(FRAMES * SIDE, SIDE)}
        for frame in range(FRAMES):
            wanted = tuple(round(255 * v) for v in colour(name, 3, frame))
            assert found[3].getpixel((frame * SIDE + SIDE // 2, SIDE // 2)) == wanted  # nothing is lost
    body = re.search(r"<body [^>]*>", page)
    assert body and f"--frames: {FRAMES}; --length: {125 * FRAMES}ms" in body[0] and "clips" in body[0].split("class=")[1]
    assert 'id="play"' in page and "The first 8 of 10 clips." in page


def test_clips_are_called_clips(tmp_path: Path) -> None:
    page = write_page(result(), clips(), tmp_path).read_text(encoding="utf-8")
    assert "makes 10 clips in" in headline(page) and "The clips match" in headline(page)
    text = re.sub(r"<(script|style).*?</\1>|<[^>]*>", " ", page, flags=re.DOTALL)
    assert "picture" not in text.lower()
    plain = {name: batch[:, 0] for name, batch in clips().items()}
    page = write_page(demo(), plain, tmp_path).read_text(encoding="utf-8")
    assert "clip" not in re.sub(r"<(script|style).*?</\1>|<[^>]*>", " ", page, flags=re.DOTALL).lower() and 'id="play"' not in page


def test_the_grid_shows_four_frames_of_each_of_two_clips(tmp_path: Path) -> None:
    grid = Image.open(write_grid(clips(), result(), tmp_path / "grid.png")).convert("RGB")
    tile = 112
    for at, (clip, frame) in enumerate((clip, frame) for clip in range(2) for frame in (0, 2, 4, 6)):
        x = grid.width - 24 - (8 - at) * (tile + 4) + tile // 2
        wanted = tuple(round(255 * v) for v in colour("uncached", clip, frame))
        assert grid.getpixel((x, 24 + tile // 2)) == wanted
