"""What the tables of the multidimensional OmniCache say, from figures made up here."""

import re

import pytest
from benchmarks.tables import markdown, watt_hours


def row(group, label, psnr, speed, plan=""):
    quality = {"samples": 3, "psnr": {"mean": psnr, "low": psnr - 1, "high": psnr + 1}, "psnr_each": [psnr - 1, psnr, psnr + 1]}
    quality |= {"ssim": {"mean": 0.9, "low": 0.8, "high": 1.0}, "kid": {"mean": 0.001, "low": 0.0, "high": 0.002}}
    quality |= {"recognised": {"mean": 0.5, "low": 0.4, "high": 0.6}, "cache_bytes": 2048}
    timed = {"speedup": {"median": speed, "low": speed, "high": speed}, "uncached": 4.0, "cached": 4.0 / speed, "at_once": 2}
    return {"group": group, "label": label, "ratio": "40%", "quality": quality, "speed": timed, "plan": plan}


def record(*rows):
    about = {"model": "m", "class": "Pipe", "unit": "picture", "steps": 20, "guidance": 2.0, "watts": 300.0, "device": "cpu"}
    known = {f"{r['group']}: {r['label']}": r for r in rows}
    return {**about, "torch": "2", "when": "today", "load_average": [], "uncached": {"samples": 3}, "rows": known}


def test_a_row_tells_speed_energy_and_quality_with_intervals():
    text = markdown(record(row("methods", "Token Cache 40%", 30.0, 2.0)))
    cells = next(line for line in text.splitlines() if line.startswith("| Token Cache"))
    # one second a picture at 300 W is 83 Wh for a thousand
    assert "| 2.00 [2.00, 2.00] | 1.00 | 83 | 30.0 [29.0, 31.0] | 0.900 [0.800, 1.000] | 1.0 [0.0, 2.0] |" in cells
    assert "| uncached |  | 1 | 2.00 | 167 |" in text


def test_the_kernel_distance_is_told_above_the_uncached_samples():
    kept, old = row("methods", "kept", 30.0, 2.0), row("methods", "old", 30.0, 2.0)
    kept["quality"]["kid_above"] = {"mean": 0.002, "low": 0.001, "high": 0.003}
    told = record(kept, old)
    told["uncached"]["kid"] = {"mean": -0.003, "low": -0.004, "high": -0.002}
    lines = {line.split(" | ")[0]: line for line in markdown(told).splitlines()}
    assert "| 1.0 [0.0, 2.0] | 2.0 [1.0, 3.0] |" in lines["| kept"] and "| 1.0 [0.0, 2.0] | 4.0 |" in lines["| old"]


def test_claims_are_judged_sample_by_sample():
    cached, mean = "tokens, cached value", "tokens, averaged and copied (ToMeSD)"
    group = "fill, tokens"
    assert "holds (3.00" in markdown(record(row(group, cached, 30.0, 1.2), row(group, mean, 27.0, 1.2)))
    assert "is refuted (-3.00" in markdown(record(row(group, cached, 27.0, 1.2), row(group, mean, 30.0, 1.2)))
    undecided = row(group, mean, 30.0, 1.2)
    undecided["quality"]["psnr_each"] = [31.0, 30.0, 29.0]
    assert "is not decided (0.00" in markdown(record(row(group, cached, 30.0, 1.2), undecided))


def test_rows_and_layers_are_set_against_layers_at_the_same_speed():
    alone = [row("methods", f"layered {x}x", y, x) for x, y in ((1.5, 40.0), (2.0, 30.0))]
    both = row("methods", "Token Cache 40% + layered 1.5x", 31.0, 1.75)
    text = markdown(record(*alone, both))
    assert re.search(r"31\.0 dB at 1\.75x; layers alone give 35\.0 dB there", text)
    both["speed"]["speedup"]["median"] = 2.4
    assert "not measured (1.50x to 2.00x)" in markdown(record(*alone, both))


def test_energy_and_ratios_are_the_papers_arithmetic():
    """Reference A2, test 15, and appendix C: a video of SVD-XT takes 110 s, 82.4 s with all three caches, 92.6 s with ToMeSD."""
    before, after = watt_hours(110, 300), watt_hours(82.4, 300)
    assert (round(before, 1), round(after, 1)) == (9.2, 6.9)
    saved = (before - after) * 1e6 / 1e6  # MWh a day for a million videos
    assert saved == pytest.approx(2.3, abs=0.01)
    assert 365 * saved == pytest.approx(840, rel=0.005)
    assert [round(x, 3) for x in (138.36 / 102.88, 110 / 82.4, 92.6 / 82.4)] == [1.345, 1.335, 1.124]
