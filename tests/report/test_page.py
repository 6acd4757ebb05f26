"""The demo's page, its grid and the calibration's pictures, from made-up results."""

from __future__ import annotations

import html
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from omnicache.api import plan_of
from omnicache.errors import OmniCacheError
from omnicache.report import write_calibration, write_grid, write_page
from omnicache.report._panels import panels
from omnicache.report.calibration import picture_data
from omnicache.report.layer_chart import CHOSEN
from omnicache.report.run import Run
from omnicache.report.speed_chart import speed_chart

from .browser import CHROMIUM, WHY_NOT, assert_fits, looked_at

for package in ("altair", "jinja2", "matplotlib", "vl_convert", "PIL"):
    pytest.importorskip(package, reason=f'{package} is not installed: pip install "omnicache[report]"')

STEPS = 20
MARK = "fewer steps does better"


def run(method: str, speedup: float, psnr: float | None, **more: Any) -> dict[str, Any]:
    reused = {"options": {"every": 2}, "computed": "#." * (STEPS // 2), "cache_bytes": 123456}
    figures = {"ssim": 0.954, "class_accuracy": 0.79, "compute_fraction": 1 / speedup, "note": None}
    spread = [speedup - 0.03, speedup + 0.03]
    times = {"seconds": 7.9 / speedup, "denoiser_seconds": 7.2 / speedup, "speedup": speedup, "speedup_spread": spread}
    return {"method": method, "psnr": psnr, **reused, **figures, **times, **more}


def demo() -> dict[str, Any]:
    return {
        "model": "emoji",
        "steps": STEPS,
        "guidance": 2.0,
        "images": 16,
        "load_average": [0.42, 0.5, 0.25],
        "device": "cpu, 2 threads",
        "baseline": {"seconds": 7.9, "denoiser_seconds": 7.2, "class_accuracy": 0.8},
        "runs": [
            run("none", 0.99, None, computed="#" * STEPS, ssim=1.0, compute_fraction=1.0, cache_bytes=0, options={}),
            run("omnicache-trajectory", 1.90, 31.2),
            run("speca", 2.30, 27.4, computed="#.?." * (STEPS // 4), cache_bytes=1423456),
            run("toca", 1.50, 26.0, computed="#o" * (STEPS // 2), note="the paper's ratio"),
            run("fewer-steps", 1.40, 30.1, label="fewer-steps @ 0.7", computed="#" * 14),
            run("fewer-steps", 2.00, 25.9, label="fewer-steps @ 0.5", computed="#" * 10),
        ],
        "skipped": [{"method": "deepcache", "why": "needs a U-Net: this model is a transformer"}],
    }


def pictures(result: dict[str, Any], n: int = 9, side: int = 32) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(0)
    base = torch.rand(n, 3, side // 8, side // 8, generator=g).repeat_interleave(8, 2).repeat_interleave(8, 3)
    found = {"uncached": base}
    for i, one in enumerate(result["runs"]):
        noise = 0.0 if one["psnr"] is None else 0.02 * (i + 1)
        found[one.get("label") or one["method"]] = (base + noise * torch.randn(base.shape, generator=g)).clamp(0, 1)
    return found


def calibration(paths: int = 4) -> dict[str, Any]:
    t = torch.linspace(0, 1, STEPS + 1)
    points = [torch.stack([t + i, t**2, (3 * t).sin()], 1).tolist() for i in range(paths)]
    return {
        "points": points,
        "labels": [f"{'cat' if i < 2 else 'dog'}, seed {i % 2}" for i in range(paths)],
        "similarity": [[1.0 if i == j else 0.95 for j in range(paths)] for i in range(paths)],
        "curvature": [0.1 + 0.9 * math.exp(-i / 3) for i in range(STEPS)],
        "gamma": [0.9] * STEPS,
        "schedule": "##" + ".#" * (STEPS // 2 - 1),
    }


def write(tmp_path: Path, result: dict[str, Any], **more: Any) -> str:
    path = write_page(result, pictures(result), tmp_path, **more)
    assert path == tmp_path / "index.html"
    return path.read_text(encoding="utf-8")


def rows(page: str) -> dict[str, str]:
    """The text of each row of the table, by method."""
    table = page[page.index("<tbody") : page.index("</tbody>")]
    found = {}
    for row in table.split("<tr ")[1:]:
        name = re.search(r'<span class="name">(.*?)</span>', row)
        assert name
        found[html.unescape(name[1])] = " ".join(html.unescape(re.sub(r"<[^>]*>", " ", row)).split())
    return found


def headline(page: str) -> str:
    header = page[page.index("<header>") : page.index("</header>")]
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", header)).split())


def names(result: dict[str, Any]) -> list[str]:
    return [one.get("label") or one["method"] for one in result["runs"]]


def test_every_method_appears_with_the_figures_of_the_result(tmp_path: Path) -> None:
    result = demo()
    found = rows(write(tmp_path, result))
    assert set(found) == {"uncached", *names(result)}
    assert "7.90 s" in found["uncached"] and "80%" in found["uncached"]
    for one in result["runs"]:
        text = found[one.get("label") or one["method"]]
        assert f"{one['seconds']:.2f} s" in text
        assert f"{one['speedup']:.2f}×" in text
        assert f"{one['speedup_spread'][0]:.2f}–{one['speedup_spread'][1]:.2f}" in text
        assert f"{100 * one['compute_fraction']:.0f}%" in text
        assert ("identical" if one["psnr"] is None else f"{one['psnr']:.1f}") in text
        assert f"{one['ssim']:.3f}" in text and "79%" in text
        assert f"{one['computed'].count('#')} of {len(one['computed'])}" in text
    assert "120.6 KiB" in found["omnicache-trajectory"] and "1.4 MiB" in found["speca"] and "0 B" in found["none"]
    assert "the paper's ratio" in found["toca"]


def test_every_method_has_its_first_eight_pictures(tmp_path: Path) -> None:
    result = demo()
    page = write(tmp_path, result)
    for name in ("uncached", *names(result)):
        assert len(set(re.findall(rf'<img src="data:image/webp;base64,([^"]+)" alt="Picture \d, {re.escape(name)}">', page))) == 8
    assert "The first 8 of 16 pictures." in page


def test_page_says_where_it_was_measured_what_was_skipped_and_how_to_repeat_it(tmp_path: Path) -> None:
    page = write(tmp_path, {**demo(), "command": "omnicache demo --steps 20"})
    assert "20 steps · guidance 2 · 16 pictures · measured on cpu, 2 threads · load average 0.42, 0.5, 0.25" in headline(page)
    assert "<dt>deepcache</dt><dd>needs a U-Net: this model is a transformer</dd>" in page
    assert "omnicache demo --steps 20" in page


def test_page_is_one_small_file_without_addresses(tmp_path: Path) -> None:
    page = write(tmp_path, demo(), calibration=calibration())
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]
    assert len(page.encode()) < 3_000_000
    assert not re.findall(r"https?://|//[a-z0-9-]+\.[a-z]", re.sub(r"data:image/webp;base64,[A-Za-z0-9+/=]+", "", page))
    assert set(re.findall(r'(?:src|href)="([^#"][^:"]*:?)', page)) == {"data:"}
    assert not re.search(r"@import|url\((?!#)", page)


def test_large_pictures_are_shrunk_until_the_page_is_small(tmp_path: Path) -> None:
    result = demo()
    noise = {name: torch.rand(8, 3, 192, 384) for name in ["uncached", *names(result)]}
    assert write_page(result, noise, tmp_path).stat().st_size < 3_000_000


def test_mark_is_given_only_to_methods_that_fewer_steps_beat(tmp_path: Path) -> None:
    found = rows(write(tmp_path, demo()))
    # toca: 1.50x at 26.0 dB, where the line from (1.40, 30.1) to (2.00, 25.9) passes at 29.4 dB
    assert {name for name, text in found.items() if MARK in text} == {"toca"}
    assert "fewer steps reaches 29.4 dB" in found["toca"]


def test_no_mark_without_fewer_steps_nor_beyond_their_fastest(tmp_path: Path) -> None:
    result = demo()
    result["runs"] = [one for one in result["runs"] if one["method"] != "fewer-steps"]
    page = write(tmp_path, result)
    assert not any(MARK in text for text in rows(page).values())
    assert "not compared with simply taking fewer steps" in headline(page)
    result["runs"] += [run("fast", 3.0, 12.0), run("fewer-steps", 2.0, 25.9)]
    assert not any(MARK in text for text in rows(write(tmp_path, result)).values())


def test_headline_is_the_fastest_method_that_keeps_the_pictures(tmp_path: Path) -> None:
    text = headline(write(tmp_path, demo()))
    assert "1.90 times as fast, and hard to tell apart" in text
    assert "omnicache-trajectory makes 16 pictures in 4.16 s; without a cache they take 7.90 s." in text
    assert "computes 53% of the work" in text and "31.2 dB" in text and "79% of them (uncached: 80%)" in text
    assert "Simply taking fewer steps reaches 26.6 dB at the same speed." in text


def test_headline_says_when_fewer_steps_do_better(tmp_path: Path) -> None:
    result = demo()
    result["runs"].append(run("fewer-steps", 1.95, 33.0, label="better"))
    text = headline(write(tmp_path, result))
    assert "1.90 times as fast" in text
    assert "But fewer steps does better here: as fast or faster, it reaches 33.0 dB." in text


def test_headline_says_when_fewer_steps_are_faster_and_good_enough(tmp_path: Path) -> None:
    result = demo()
    result["runs"].append(run("fewer-steps", 2.2, 30.5, label="faster"))
    assert "But simply taking fewer steps keeps the pictures too, and is faster: 2.20× at 30.5 dB." in headline(
        write(tmp_path, result)
    )


def test_headline_says_when_the_lead_is_in_time_alone(tmp_path: Path) -> None:
    result = demo()
    result["runs"] = [run("a", 1.9, 31.2, compute_fraction=0.6), run("fewer-steps", 1.8, 32.0, compute_fraction=0.55)]
    assert "same share of compute, fewer steps would reach 32.0 dB" in headline(write(tmp_path, result))


def test_headline_when_nothing_keeps_the_pictures(tmp_path: Path) -> None:
    result = demo()
    result["runs"] = [run("a", 1.9, 21.2), run("b", 2.4, 18.0), run("fewer-steps", 1.2, 31.0)]
    text = headline(write(tmp_path, result))
    assert "No method was both faster and close enough" in text
    assert "The closest of the faster ones was a: 1.90× at 21.2 dB" in text
    assert "Simply taking fewer steps was: 1.20× at 31.0 dB" in text


def test_headline_claims_no_speed_of_a_run_that_reused_nothing(tmp_path: Path) -> None:
    result = demo()
    result["runs"].append(run("teacache", 2.9, None, computed="#" * STEPS, label="idle", ssim=1.0))
    page = write(tmp_path, result)
    assert "1.90 times as fast" in headline(page) and "nothing was reused" in rows(page)["idle"]


def test_what_people_can_tell_apart_is_not_kept(tmp_path: Path) -> None:
    result = demo()
    result["runs"] = [run("a", 1.84, 25.6), run("fewer-steps", 1.2, 29.0)]
    page = write(tmp_path, result)
    assert "No method was both faster and close enough" in headline(page) and "fastest that keeps" not in page
    assert "at a PSNR of 30 dB or more" in page


def test_headline_when_the_best_is_identical(tmp_path: Path) -> None:
    result = demo()
    result["runs"] = [run("a", 1.5, None, ssim=1.0)]
    text = headline(write(tmp_path, result))
    assert "1.50 times as fast, and identical" in text and "The pictures are identical to the uncached ones" in text


def test_a_method_that_loses_the_classes_does_not_keep_the_pictures(tmp_path: Path) -> None:
    result = demo()
    result["runs"].append(run("blind", 2.5, 34.0, class_accuracy=0.5))
    assert "1.90 times as fast" in headline(write(tmp_path, result))


def test_strips_have_one_bar_a_step_and_say_what_they_show(tmp_path: Path) -> None:
    page = write(tmp_path, demo())
    speca = re.search(r'aria-label="5 of 20 computed, 5 drafted and checked, 10 reused">(.*?)</svg>', page)
    assert speca and speca[1].count("M") == STEPS
    fewer = re.search(r'viewBox="0 0 20 10"[^>]*aria-label="14 of 14 computed">(.*?)</svg>', page)
    assert fewer and fewer[1].count("M") == 14


def test_chart_names_every_method_and_draws_one_line_for_fewer_steps(tmp_path: Path) -> None:
    result = demo()
    page = write(tmp_path, result)
    charts = re.findall(r'<svg [^>]*aria-label="Speedup against PSNR.*?</svg>', page, flags=re.DOTALL)
    assert len(charts) == 2  # a wide one and one for phones
    for chart in charts:
        for name in ("omnicache-trajectory", "speca", "toca"):
            assert f">{name}</text>" in chart
        assert chart.count(">fewer steps</text>") == 1 and "stroke-dasharray" in chart
        assert "fewer-steps @ 0.5 2.00× at 25.9" in html.unescape(chart)
    assert "not drawn: none." in page


def test_calibration_pictures(tmp_path: Path) -> None:
    page = write(tmp_path, demo(), calibration={**calibration(), "sigma": [1 - i / STEPS for i in range(STEPS)]})
    for title in ("Paths from noise to picture", "How alike the paths are", "Curvature", "Gamma", "Sigma"):
        assert f"<h3>{title}" in page
    assert "The least alike pair scores 0.95, the mean pair 0.95." in page and "They have much the same shape" in page
    assert "4 sampling paths in three dimensions" in page and "9 of 20 steps are reused" in page
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert "Why these steps" not in write(tmp_path, demo())


def test_text_of_the_result_is_escaped(tmp_path: Path) -> None:
    result = demo()
    evil = "<script>alert('x')</script>\"&"
    result["runs"].append(run("evil", 1.8, 29.0, label=evil, note=evil, options={evil: evil}))
    result.update(model=evil, device=evil, command=evil, skipped=[{"method": evil, "why": evil}])
    bad = calibration()
    bad["labels"] = [evil, *bad["labels"][1:]]
    page = write(tmp_path, result, calibration=bad)
    assert evil in rows(page)
    assert "alert(" in page and "<script>alert" not in page


def test_missing_figures_are_dashes_and_names_stay_apart(tmp_path: Path) -> None:
    result: dict[str, Any] = {"model": "m", "steps": 3, "baseline": {"seconds": 1.0}}
    bare = {"method": "a", "psnr": math.nan}
    result["runs"] = [{**bare, "options": {"n": 2}}, {**bare, "options": {"n": 3}}, {"method": "same", "psnr": math.inf}]
    base = torch.rand(1, 3, 16, 16)
    page = write_page(result, {"uncached": base, "a @ n=2": base, "unknown": base}, tmp_path).read_text()
    found = rows(page)
    assert set(found) == {"uncached", "a @ n=2", "a @ n=3", "same"}
    assert "–" in found["a @ n=2"] and "identical" in found["same"] and "Class accuracy" not in page
    assert "unknown" not in page


def test_wrong_input_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(OmniCacheError, match="uncached"):
        write_page(demo(), {}, tmp_path)
    with pytest.raises(OmniCacheError, match="speca have"):
        write_page(demo(), {"uncached": torch.rand(2, 3, 8, 8), "speca": torch.rand(2, 3, 8, 9)}, tmp_path)
    with pytest.raises(OmniCacheError, match="gamma"):
        write_calibration({key: value for key, value in calibration().items() if key != "gamma"}, tmp_path / "c.png")


@pytest.mark.parametrize("package", ["jinja2", "altair", "vl_convert"])
def test_a_missing_package_is_named_with_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(OmniCacheError, match=re.escape('pip install "omnicache[report]"')):
        write(tmp_path, demo())


def test_importing_the_reports_imports_no_drawing_package() -> None:
    code = "import sys, omnicache.report; print([m for m in ('altair', 'matplotlib', 'jinja2', 'PIL') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_grid_has_a_row_for_each_method_and_at_most_eight_columns(tmp_path: Path) -> None:
    from PIL import Image

    result = demo()
    batch = pictures(result)
    image = Image.open(write_grid(batch, result, tmp_path / "new" / "grid.png")).convert("RGB")
    rows_drawn, tile = 1 + len(result["runs"]), 128  # 32 pixels, drawn four times as large
    assert image.height == 48 + rows_drawn * (tile + 4)
    left = image.width - 24 - 8 * (tile + 4)
    assert left > 150  # room for the labels
    want = tuple(int(v) for v in (batch["uncached"][7, :, 0, 0] * 255).round())
    assert image.getpixel((left + 7 * (tile + 4), 24)) == want
    labels = image.crop((24, 24, left - 12, image.height - 24)).convert("L")
    for y in range(rows_drawn):  # every row has ink in its label
        assert min(labels.crop((0, y * (tile + 4), labels.width, y * (tile + 4) + tile)).tobytes()) < 100


def test_calibration_png(tmp_path: Path) -> None:
    from PIL import Image

    image = Image.open(write_calibration(calibration(), tmp_path / "new" / "calibration.png"))
    assert image.width == 2000 and image.height > 1200
    assert len(image.convert("RGB").resize((200, 200)).getcolors(40_000) or []) > 50


def by_layer(layers: int = 12) -> dict[str, Any]:
    weight = [[0.0 if t % 5 == 0 else math.exp(-t / 8 - n / 20) for t in range(STEPS)] for n in range(layers)]
    rows = ["".join("." if 0 < w < 0.1 else "#" for w in row) for row in weight]
    return {"rows": rows, "weight": weight, "lat": [0.01] * layers, "saved": [0.009] * layers}


@pytest.mark.parametrize("layers", [1, 12, 60])
def test_the_heat_map_of_layers(tmp_path: Path, layers: int) -> None:
    from PIL import Image

    image = Image.open(write_calibration(by_layer(layers), tmp_path / "layers.png")).convert("RGB")
    assert image.width == 2000 and image.height > 500
    dot = tuple(int(CHOSEN[i : i + 2], 16) for i in (1, 3, 5))
    seen = image.crop((0, 120, 1000, image.height)).getcolors(4_000_000) or []
    assert any(max(abs(a - b) for a, b in zip(colour, dot, strict=True)) < 24 for _, colour in seen)
    svg = panels(by_layer(layers))[0].svg()
    assert f"{layers} layers and {STEPS} steps" in svg
    assert "http" not in svg.replace("http://www.w3.org", "")
    with pytest.raises(OmniCacheError, match="has no 'saved'"):
        write_calibration({k: v for k, v in by_layer().items() if k != "saved"}, tmp_path / "c.png")


def test_the_heat_map_has_a_dot_at_each_reused_cell_and_nowhere_else() -> None:
    rows, weight = ("##.#.", "#..#.", "#####"), [[0.0, 0.5, 2.0, 0.0, 1.0], [0.0, 3.0, 0.25, 0.0, 4.0], [0.0, 1.5, 2.5, 0.0, 3.5]]
    plan = plan_of("omnicache-layered", schedule=rows).with_measured(rows=rows, weight=weight, lat=[0.1] * 3, saved=[0.1] * 3)
    chart = panels(picture_data(plan, []))[0].drawing.to_dict()
    heat, dots = (chart["datasets"][layer["data"]["name"]] for layer in chart["layer"])
    reused = [{"layer": n, "step": t} for n, row in enumerate(rows) for t, mark in enumerate(row, 1) if mark == "."]
    assert dots == reused
    assert heat == [{"layer": n, "step": t, "w": w} for n, row in enumerate(weight) for t, w in enumerate(row, 1) if w]
    assert [layer["mark"]["type"] for layer in chart["layer"]] == ["rect", "point"]
    assert all([layer["encoding"][axis]["field"] for axis in "xy"] == ["step", "layer"] for layer in chart["layer"])


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_colours_have_contrast_in_light_and_dark(tmp_path: Path) -> None:
    page = write(tmp_path, demo())
    modes = [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block)) for block in re.findall(r":root \{(.*?)\}", page, re.DOTALL)]
    assert len(modes) == 2 and modes[0].keys() == modes[1].keys()

    def ratio(mode: dict[str, str], a: str, b: str) -> float:
        low, high = sorted((luminance(mode[a]), luminance(mode[b])))
        return (high + 0.05) / (low + 0.05)

    for mode in modes:
        for text, grounds in {
            "ink": ("ground", "accent-ground", "raised"),
            "muted": ("ground", "accent-ground", "raised"),
            "accent": ("ground", "accent-ground"),
            "warn": ("ground", "warn-ground"),
        }.items():
            for ground in grounds:
                assert ratio(mode, text, ground) >= 4.5, (text, ground)
        for drawn in ("soft", *(f"path-{i}" for i in range(1, 9))):
            assert ratio(mode, drawn, "ground") >= 3, drawn


PROBE = """
  var radios = document.querySelectorAll("input[name=method]"), first = document.querySelectorAll("#trio b")[1].textContent;
  radios[0].click();
  return {
    first: first, second: document.querySelectorAll("#trio b")[1].textContent, wanted: radios[0].value,
    tiles: document.querySelectorAll("#trio .tile").length,
    columns: getComputedStyle(document.getElementById("trio")).gridTemplateColumns.split(" ").length
  };
"""


@pytest.mark.skipif(CHROMIUM is None, reason=WHY_NOT)
def test_page_fits_a_desk_and_a_phone_and_compares(tmp_path: Path) -> None:
    result = demo()
    result["runs"].append(run("a-method-of-another-family", 1.7, 28.0, label="a-method-of-another-family @ interval=3,order=2"))
    seen = looked_at(write(tmp_path, result, calibration=calibration()), tmp_path, PROBE)
    assert_fits(seen)
    for one in seen.values():
        assert one["tiles"] == 24
        assert one["first"] == "omnicache-trajectory" and one["second"] == one["wanted"] != one["first"]
    assert seen[1280]["columns"] == 9 and seen[390]["columns"] == 3


def test_one_disturbed_repeat_does_not_take_the_room_of_the_chart() -> None:
    runs = Run.all({"runs": [run("a", 1.5, 35.0, speedup_spread=[1.4, 9.3]), run("b", 4.0, 31.0)]})
    chart = speed_chart(runs, None)
    assert chart is not None
    shown = [layer["encoding"].get("x", {}).get("scale", {}) for layer in chart.to_dict()["layer"]]
    assert max(scale["domain"][1] for scale in shown if scale) < 5.2
