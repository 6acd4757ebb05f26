"""The comparison's parts: what is tried, what is kept, what nothing beats, how it stands to fewer steps."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import omnicache
from omnicache.errors import OmniCacheError
from omnicache.kept.store import Store
from omnicache.measure.bench import settings_of
from omnicache.measure.bench.chosen import chosen
from omnicache.measure.bench.found import Found
from omnicache.measure.bench.frontier import below, frontier, lead, verdict
from omnicache.measure.bench.setting import Setting
from omnicache.plan import Plan
from omnicache.registry import METHODS

POINTS = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.tuples(*[st.integers(1, 6).map(float)] * 2), max_size=9)


# --- what is tried ---------------------------------------------------------------------------------------------------------


def test_fewer_steps_come_first_and_then_every_method_once_before_any_twice():
    found = settings_of(["taylorseer", "fora", "omnicache-layered", "tomesd"])
    names = [one.method for one in found]
    fewer = len(METHODS["fewer-steps"].settings)
    assert set(names[:fewer]) == {"fewer-steps"} and names[fewer] == "none"
    assert names[fewer + 1 : fewer + 4] == ["taylorseer", "fora", "tomesd"]
    assert found[fewer + 1].options == {"interval": 4}, "the middle of the sweep"
    assert set(names[-len(METHODS["omnicache-layered"].settings) :]) == {"omnicache-layered"}, "slow to calibrate"
    assert len({one.label for one in found}) == len(found)
    assert found[fewer + 1].label == "taylorseer interval=4"


def test_a_sweep_is_thinned_out_and_a_method_without_one_is_taken_at_its_defaults():
    found = settings_of(["taylorseer", "none"], most=2)
    assert [dict(one.options) for one in found if one.method == "taylorseer"] == [{"interval": 3}, {"interval": 5}]
    assert sum(one.method == "fewer-steps" for one in found) == 4
    assert [one.options for one in found if one.method == "none"] == [{}]


def test_an_unknown_method_is_refused_with_the_nearest_name():
    with pytest.raises(OmniCacheError, match="Did you mean 'taylorseer'"):
        settings_of(["taylorser"])


def test_all_methods_with_options_say_what_their_main_knob_is():
    for entry in METHODS.values():
        if entry.build.__module__.startswith("omnicache.methods."):
            assert entry.sweep or not entry.options, f"{entry.name}: @method(..., sweep={{...}})"


@pytest.fixture
def registry():
    before = dict(METHODS)
    yield
    METHODS.clear()
    METHODS.update(before)


@pytest.mark.parametrize(("sweep", "why"), [({"intervall": (2,)}, "intervall"), ({"interval": (2, "many")}, "many")])
def test_a_sweep_that_does_not_fit_is_refused_when_the_method_is_registered(registry, sweep, why):
    with pytest.raises(OmniCacheError, match=why):

        @omnicache.method("swept", off={"interval": 1}, sweep=sweep)
        def swept(interval: int = 2) -> Plan:
            return Plan("swept", options={"interval": interval})


def test_two_knobs_are_tried_in_all_combinations(registry):
    @omnicache.method("swept", off={"a": 1}, sweep={"a": (1, 2), "b": (3, 4)})
    def swept(a: int = 1, b: int = 3) -> Plan:
        return Plan("swept")

    assert METHODS["swept"].settings == ({"a": 1, "b": 3}, {"a": 1, "b": 4}, {"a": 2, "b": 3}, {"a": 2, "b": 4})


# --- what nothing beats ----------------------------------------------------------------------------------------------------


def test_the_frontier_is_what_nothing_beats():
    points = {"slow": (1.0, 50.0), "good": (2.0, 45.0), "beaten": (1.9, 44.0), "level": (2.0, 40.0), "fast": (4.0, 20.0)}
    assert frontier(points) == ["slow", "good", "fast"]
    assert frontier({}) == []


@given(POINTS)
def test_the_frontier_by_comparing_all_with_all(points):
    def beats(a, b):
        return points[a][0] >= points[b][0] and points[a][1] >= points[b][1] and points[a] != points[b]

    wanted = {points[name] for name in points if not any(beats(other, name) for other in points)}
    found = frontier(points)
    assert {points[name] for name in found} == wanted and len(found) == len(wanted)
    assert [points[name][0] for name in found] == sorted(points[name][0] for name in found)
    assert all(below(points, name) == 0 for name in found)
    assert all(below(points, name) >= 0 for name in points)


def test_how_far_below_the_frontier_is_read_off_the_line_between():
    points = {"a": (1.0, 40.0), "b": (3.0, 20.0), "c": (2.0, 15.0), "d": (3.0, 19.0)}
    assert below(points, "c") == pytest.approx(15.0)
    assert below(points, "d") == pytest.approx(1.0)


def test_the_lead_over_fewer_steps_is_taken_sample_by_sample_at_equal_speed():
    fewer = [(2.0, [30.0, 40.0]), (4.0, [20.0, 24.0])]
    found = lead(3.0, [26.0, 33.0], fewer)
    assert found is not None
    assert found["mean"] == pytest.approx(1.0) and found["low"] == found["high"] == pytest.approx(1.0)  # 25 and 32 on the line
    assert found["fewer"] == pytest.approx(28.5)
    slower = lead(1.5, [32.0, 36.0], fewer)
    assert slower is not None and slower["mean"] == pytest.approx(-1.0), "fewer steps that are faster count as they are"
    assert slower["low"] < -1 < slower["high"]
    assert lead(4.1, [1.0, 1.0], fewer) is None


@pytest.mark.parametrize(
    ("speedup", "ahead", "word"),
    [
        (0.97, (-3, -2), "slower"),
        (0.97, (2, 3), "slower"),
        (1.5, (0.1, 2), "better"),
        (1.5, (-2, -0.1), "worse"),
        (1.5, (-1, 1), "even"),
        (9.0, None, "beyond"),
    ],
)
def test_the_verdict_on_a_setting(speedup, ahead, word):
    span = None if ahead is None else {"mean": sum(ahead) / 2, "low": ahead[0], "high": ahead[1]}
    row = {"method": "fora", "speedup": {"median": speedup}, "lead": span}
    assert verdict(row) == word
    assert verdict({**row, "method": "fewer-steps"}) == "reference"


def found_at(method: str, value: float, speed: float, psnr: float) -> Found:
    figures = {"speedup": {"median": speed}, "psnr": {"mean": psnr}, "psnr_each": [psnr, psnr]}
    return Found(Setting(method, {"interval": value}), f"{method} {value}", figures)


def test_all_samples_go_to_fewer_steps_each_best_and_what_is_close_to_the_frontier():
    all_of_them = [
        found_at("none", 0, 1.0, 100.0),
        *(found_at("fewer-steps", r, 1 / r, 40 * r) for r in (0.8, 0.5, 0.25)),
        found_at("good", 2, 2.0, 45.0),  # 25 dB ahead of fewer steps
        found_at("good", 3, 3.0, 35.0),  # on the frontier
        found_at("near", 2, 2.9, 35.5),  # 0.5 dB below it
        found_at("near", 3, 1.3, 36.0),
        found_at("bad", 2, 1.2, 20.0),
        found_at("bad", 3, 1.9, 12.0),  # 9 dB behind, which is its best
        found_at("slow", 2, 0.8, 60.0),
        found_at("slow", 3, 1.1, 15.0),  # worse pictures, but at least faster
        found_at("mild", 2, 1.02, 39.0),  # 7 dB ahead, and hardly faster than nothing
        found_at("mild", 3, 1.3, 33.0),  # 1.3 dB ahead where fewer steps are as fast
        Found(Setting("refused", {}), "refused", refused="It does not apply."),
    ]
    wanted = [one.key for one in chosen(all_of_them, near=5)]
    assert wanted[:3] == ["fewer-steps 0.8", "fewer-steps 0.5", "fewer-steps 0.25"]
    assert set(wanted[3:]) == {"good 2", "good 3", "near 2", "bad 3", "slow 3", "mild 3"}
    assert "good 3" not in [one.key for one in chosen(all_of_them, near=0)]
    assert chosen([], near=5) == []


def test_results_are_json(tmp_path):
    row = Store(tmp_path / "rows.jsonl").put("x", {"a": 1.0})
    assert json.loads((tmp_path / "rows.jsonl").read_text()) == row
    with pytest.raises(ValueError, match="JSON"):
        Store(tmp_path / "rows.jsonl").put("y", {"a": float("nan")})
    assert Store(tmp_path / "rows.jsonl").get("y") is None


def test_a_mean_over_clips_and_pictures_alike():
    from omnicache.measure.quality import likeness95

    pytest.importorskip("torchmetrics")
    base = torch.rand(3, 2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    made = (base + 0.1).clamp(0, 1)
    found = likeness95(made, base)
    frames = likeness95(made.flatten(0, 1), base.flatten(0, 1))["psnr_each"]
    means = [sum(pair) / 2 for pair in zip(frames[::2], frames[1::2], strict=True)]
    assert found["psnr_each"] == pytest.approx(means, abs=1e-4)
