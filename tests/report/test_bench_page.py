"""The comparison's page, from made-up results."""

from __future__ import annotations

import html
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from omnicache.measure.bench.frontier import frontier
from omnicache.report import write_bench

from .browser import CHROMIUM, WHY_NOT, assert_fits, looked_at

for package in ("altair", "jinja2", "vl_convert", "PIL"):
    pytest.importorskip(package, reason=f'{package} is not installed: pip install "omnicache[report]"')

CACHES = {"taylorseer": 9.0, "a-method-with-a-long-name": 4.0, "teacache": 0.2, "fora": -2.0, "toca": -6.0}
"""dB that each is ahead of fewer steps."""


def span(mean: float, half: float, word: str = "mean") -> dict[str, float]:
    return {word: mean, "low": mean - half, "high": mean + half}


def row(
    method: str, knob: str, value: float, speed: float, psnr: float, ahead: float | None, closely: bool = True
) -> dict[str, Any]:
    label = f"{method} {knob}={value:g}" if knob else method
    lead = None if ahead is None else {**span(ahead, 0.5), "fewer": psnr - ahead}
    if method in ("fewer-steps", "none"):
        verdict = "reference"
    elif speed < 1:
        verdict = "slower"
    else:
        verdict = "better" if (ahead or 0) > 0.5 else "worse" if (ahead or 0) < -0.5 else "even"
    figures = {"psnr": span(psnr, 0.8), "ssim": span(0.95, 0.01), "recognised": span(0.99, 0.01)}
    figures |= {"kid": span(0.001, 0.0007), "kid_above": span(0.0004, 0.0001)}
    more = {"seconds": 0.2, "compute_fraction": 1 / speed, "cache_bytes": 262144, "computed": "#." * 10, "pairs": 9, "load": 0.3}
    about = {"method": method, "label": label, "options": {knob: value} if knob else {}, "closely": closely, "note": ""}
    speedup = span(speed, 0.04, "median")
    return {**about, "samples": 256 if closely else 8, "speedup": speedup, **figures, **more, "lead": lead, "verdict": verdict}


def result(caches: dict[str, float] = CACHES) -> dict[str, Any]:
    rows = [row("none", "", 0, 1.0, 100.0, None)]
    rows += [row("fewer-steps", "ratio", r, 1 / r, 42 - 14 * math.log2(1 / r), 0.0) for r in (0.9, 0.75, 0.5, 0.35, 0.25, 0.15)]
    for name, ahead in caches.items():
        for i, speed in enumerate((1.3, 1.8, 2.4, 3.0)):
            slow = speed * (0.6 if name == "toca" else 1.0)
            psnr = max(42 - 14 * math.log2(slow) + ahead - 0.4 * i, 8.0)
            rows.append(row(name, "interval", i + 2, slow, psnr, ahead - 0.4 * i, closely=i == 0))
    edge = frontier({r["label"]: (r["speedup"]["median"], r["psnr"]["mean"]) for r in rows if r["method"] != "none"})
    for one in rows:
        one["frontier"] = one["label"] in edge
    methods = []
    for name in dict.fromkeys(r["method"] for r in rows):
        mine = [r for r in rows if r["method"] == name]
        lost = sum(r["verdict"] in ("worse", "slower") for r in mine)
        about = {"method": name, "paper": "", "best": mine[0]["label"], "settings": len(mine), "worse": lost}
        methods.append({**about, "verdict": mine[0]["verdict"], "memory": [1 << 17, 1 << 19, None]})
    about = {"model": "emoji", "class": "DiTPipeline", "unit": "picture", "steps": 20, "guidance": 2.0, "samples": 256, "first": 8}
    about |= {"batch": 4, "quick": False, "device": "cpu, 2 threads", "torch": "2.13.0", "load_average": [0.3, 0.2, 0.1]}
    uncached = {"samples": 256, "kid": span(0.0005, 0.0004), "recognised": span(1.0, 0.0)}
    left = {"skipped": [{"method": "deepcache", "why": "deepcache needs a U-Net."}], "refused": [], "left_out": []}
    more = {"sides": [64, 128, 256], "seconds": 3000.0, "uncached": uncached, "command": "omnicache bench --model emoji"}
    return {**about, **more, "rows": rows, "methods": methods, **left}


def pictures(found: dict[str, Any]) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    names = ["uncached", *(one["best"] for one in found["methods"])]
    return {name: torch.rand(8, 3, 4, 4, generator=draw).repeat_interleave(8, 2).repeat_interleave(8, 3) for name in names}


def write(folder: Path, found: dict[str, Any]) -> str:
    return write_bench(found, pictures(found), folder).read_text(encoding="utf-8")


def text(part: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", part)).split())


def section(page: str, name: str) -> str:
    return next(part for part in page.split("<section ") if f'id="{name}"' in part)


def test_what_loses_to_fewer_steps_comes_first(tmp_path: Path) -> None:
    page = write(tmp_path, result())
    assert re.findall(r'<h2 id="([\w-]+)"', page)[0] == "h-lost"
    assert "2 of 5 methods lose to taking fewer steps" in text(page[page.index("<header>") : page.index("</header>")])
    lost = re.findall(r'<span class="name">(.*?)</span>', section(page, "h-lost"))
    assert lost == ["fora interval=2", "toca interval=2"]
    said = text(section(page, "h-lost"))
    assert "Worse than fewer steps" in said and "slower than no cache" in said
    assert "-2.0 -2.5 to -1.5" in said, "how much, and how sure that is"
    assert "teacache (2 of 4)" in said, "what loses at some settings is named, too"
    others = re.findall(r'<span class="name">(.*?)</span>', section(page, "h-others"))
    assert set(others) == {"taylorseer interval=2", "a-method-with-a-long-name interval=2", "teacache interval=2"}


@pytest.mark.parametrize(
    ("caches", "headline"),
    [
        ({"fora": -2.0, "toca": -6.0}, "Taking fewer steps beats every method"),
        ({"taylorseer": 9.0, "hicache": 8.0}, "No method loses to taking fewer steps"),
        ({"taylorseer": 9.0, "fora": -2.0}, "1 of 2 methods loses to taking fewer steps"),
    ],
)
def test_the_headline_counts_what_loses(tmp_path: Path, caches: dict[str, float], headline: str) -> None:
    assert f"<h1>{headline}</h1>" in write(tmp_path, result(caches))


def test_every_method_and_setting_is_there_with_its_figures(tmp_path: Path) -> None:
    found = result()
    page = write(tmp_path, found)
    for one in found["methods"]:
        assert one["method"] in text(page)
    every = text(section(page, "h-every"))
    for one in found["rows"]:
        assert one["label"] in every and f"{one['speedup']['median']:.2f}×" in every
    assert "identical" in text(section(page, "h-references"))
    assert "<dt>deepcache</dt><dd>deepcache needs a U-Net.</dd>" in page
    memory = text(section(page, "h-memory"))
    assert "64 × 64 128 × 128 256 × 256" in memory and "128.0 KiB 512.0 KiB –" in memory
    assert "The fastest setting that stays hard to tell apart from the uncached pictures is taylorseer interval=2: 1.30×" in text(
        page
    )
    assert "20 steps · guidance 2 · 256 pictures · batches of 4 · measured on cpu, 2 threads" in text(page)
    assert "8 pictures only" in every


def test_what_was_left_out_is_said_at_the_top_and_named(tmp_path: Path) -> None:
    page = write(tmp_path, {**result(), "left_out": ["speca longest=8", "fora interval=7"]})
    assert "2 parts were left out" in text(page[page.index("<header>") : page.index("</header>")])
    assert "<dt>speca longest=8</dt><dd>There was no time left for it.</dd>" in page


def test_the_page_is_one_small_file_without_addresses(tmp_path: Path) -> None:
    page = write(tmp_path, result({f"method-{i}": 5.0 - i / 3 for i in range(40)}))
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]
    assert len(page.encode()) < 4_000_000
    assert not re.findall(r"https?://|//[a-z0-9-]+\.[a-z]", re.sub(r"data:image/webp;base64,[A-Za-z0-9+/=]+", "", page))
    assert not re.search(r"@import|url\((?!#)|<script", page)


def test_kid_is_told_as_how_far_above_the_uncached_samples(tmp_path: Path) -> None:
    page = write(tmp_path, result())
    assert "1.0 +0.4, +0.3 to +0.5" in text(page) and "how far above" in text(page)


def test_a_quick_look_says_so(tmp_path: Path) -> None:
    found = result()
    for one in found["rows"]:
        one["kid"] = one["kid_above"] = None
    found |= {"quick": True, "uncached": {"samples": 4, "recognised": 1.0}}
    page = write(tmp_path, found)
    assert "A quick look" in page and "KID" not in text(page)


@pytest.mark.skipif(CHROMIUM is None, reason=WHY_NOT)
def test_the_page_fits_a_desk_and_a_phone(tmp_path: Path) -> None:
    page = write(tmp_path, result()).replace("style-src 'unsafe-inline'", "style-src 'unsafe-inline'; script-src 'unsafe-inline'")
    opened = 'document.querySelectorAll("details").forEach(function (d) { d.open = true; }); return {};'
    assert_fits(looked_at(page, tmp_path, opened))
