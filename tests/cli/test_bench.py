"""The comparison on a tiny model: all of it, interrupted, and short of time."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import omnicache
from omnicache import registry, zoo
from omnicache.cli import app
from omnicache.cli import bench as command
from omnicache.cli.bench import best_of
from omnicache.cli.record import recorded
from omnicache.cli.waiting import time_left
from omnicache.errors import OmniCacheError
from omnicache.measure import Task
from omnicache.measure.bench import Bench, Size
from omnicache.measure.bench.fingerprint import key_of
from omnicache.measure.bench.gauge import Gauge
from omnicache.measure.bench.memory import held
from omnicache.measure.bench.plans import Plans
from omnicache.measure.bench.setting import Setting
from omnicache.plan import Plan
from omnicache.zoo.classifier import Classifier

from .test_demo import by_class

for package in ("altair", "jinja2", "vl_convert", "torchmetrics"):
    pytest.importorskip(package)

NAMES = ["taylorseer", "deepcache", "teacache"]
SIZE = Size(samples=6, first=2, batch=2, pairs=2, calibration=1, near=2, most=2)
SMALL = replace(SIZE, samples=4, most=1)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """The name of a tiny model of the zoo."""
    folder = tmp_path / "zoo" / "tiny"
    by_class(folder)
    torch.manual_seed(0)
    Classifier(4, channels=(8, 8)).save(folder / "classifier")
    monkeypatch.setenv("OMNICACHE_ZOO", str(tmp_path / "zoo"))
    return "tiny"


@pytest.fixture
def task(tiny):
    return Task(tiny, zoo.load(tiny), SMALL.samples, 8)


def started(task: Task, folder: Path, size: Size = SMALL, names: list[str] = NAMES) -> Bench:
    return Bench(task, folder, names, size)


def figures(result: dict[str, Any]) -> dict[str, Any]:
    """What does not depend on the clock."""
    kept = ("psnr", "ssim", "kid", "recognised", "cache_bytes", "compute_fraction", "computed", "samples", "closely")
    return {row["label"]: {key: row[key] for key in kept} for row in result["rows"]}


def test_the_command_measures_everything_and_writes_a_page(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(command.FULL, "picture", SIZE)
    args = ["--model", tiny, "--methods", ",".join(NAMES), "--steps", "8", "--guidance", "2.5", "--samples", "6"]
    done = CliRunner().invoke(app, ["bench", *args, "--out", str(tmp_path / "out"), "--json"], catch_exceptions=False)
    result = json.loads(done.stdout)
    assert (result["model"], result["steps"], result["guidance"], result["samples"]) == (tiny, 8, 2.5, 6)
    rows, methods = {row["label"]: row for row in result["rows"]}, {one["method"]: one for one in result["methods"]}
    assert set(methods) == {"none", "fewer-steps", "taylorseer", "teacache"}, "what it is compared with is never left out"
    assert [one["method"] for one in result["skipped"]] == ["deepcache"] and "needs a U-Net" in result["skipped"][0]["why"]
    assert not result["left_out"] and not result["refused"]
    for row in result["rows"]:
        for name in ("psnr", "ssim", "recognised"):
            assert row[name]["low"] <= row[name]["mean"] <= row[name]["high"]
        assert row["speedup"]["low"] <= row["speedup"]["median"] <= row["speedup"]["high"]
        assert row["samples"] == (6 if row["closely"] else 2) and (row["kid"] is not None) == row["closely"]
    assert rows["none"]["psnr"]["mean"] == 100 and rows["none"]["compute_fraction"] == 1
    assert rows["fewer-steps ratio=0.5"]["compute_fraction"] == 0.5 and rows["fewer-steps ratio=0.5"]["closely"]
    assert rows["taylorseer interval=3"]["computed"].startswith("###..#")
    assert rows["taylorseer interval=3"]["compute_fraction"] < 1 and rows["taylorseer interval=3"]["cache_bytes"] > 0
    assert rows[methods["taylorseer"]["best"]]["closely"]
    one, two, four = methods["taylorseer"]["memory"]
    assert two == 4 * one and four == 16 * one and result["sides"] == [16, 32, 64]
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    for name in (*NAMES, "fewer-steps", "none"):
        assert name in page
    assert 'alt="Picture 2, uncached"' in page
    assert json.loads((tmp_path / "out" / "bench.json").read_text())["rows"] == result["rows"]
    best = best_of(result)
    if best is None:  # everything loses to fewer steps: there is nothing to tell more of
        assert not (tmp_path / "out" / "run.json").exists()
    else:
        record, plan = recorded(tmp_path / "out")
        assert record.chosen == best and plan.method == best.split()[0] and record.model == tiny
        assert {one["label"] for one in record.tried} == {row["label"] for row in result["rows"]}


def test_a_quick_look_leaves_out_what_is_slow_to_calibrate(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(command.QUICK, "picture", replace(command.QUICK["picture"], samples=2, first=2, most=1))
    args = ["--model", tiny, "--methods", "taylorseer,omnicache-layered", "--steps", "8", "--quick"]
    done = CliRunner().invoke(app, ["bench", *args, "--out", str(tmp_path / "out"), "--json"], catch_exceptions=False)
    result = json.loads(done.stdout)
    assert result["quick"] and not any(row["closely"] for row in result["rows"])
    assert [one["method"] for one in result["skipped"]] == ["omnicache-layered"]
    assert "Leave --quick out" in result["skipped"][0]["why"]
    assert [row["label"] for row in result["rows"] if row["method"] == "taylorseer"] == ["taylorseer interval=4"]


@pytest.mark.parametrize("at", [1, 7])
def test_after_an_interruption_it_goes_on_and_ends_with_the_same_rows(task, tmp_path, monkeypatch, at):
    whole = started(task, tmp_path / "whole").run()
    measured: list[str] = []
    for part in ("first", "closely"):
        plain = getattr(Gauge, part)

        def counted(self, plan, *more, plain=plain, part=part):
            if len(measured) == at:
                raise KeyboardInterrupt
            found = plain(self, plan, *more)
            measured.append(f"{part} {plan.method} {dict(plan.options)}")
            return found

        monkeypatch.setattr(Gauge, part, counted)
    with pytest.raises(KeyboardInterrupt):
        started(task, tmp_path / "cut").run()
    known = [json.loads(line) for line in (tmp_path / "cut" / "rows.jsonl").read_text().splitlines()]
    assert sum("figures" in row and "method" in row for row in known) == at
    at = -1  # from here on nothing stops it
    resumed = started(task, tmp_path / "cut").run()
    assert figures(resumed).keys() == figures(whole).keys()
    firsts = {label: row for label, row in figures(whole).items() if row["closely"] == figures(resumed)[label]["closely"]}
    assert all(figures(resumed)[label] == row for label, row in firsts.items()) and len(firsts) >= 4
    firsts_measured = [one for one in measured if one.startswith("first")]
    assert len(firsts_measured) == len(set(firsts_measured)), "nothing was measured twice"
    again = [json.loads(line) for line in (tmp_path / "cut" / "rows.jsonl").read_text().splitlines()]
    assert again[: len(known)] == known
    count = len(measured)
    assert started(task, tmp_path / "cut").run() == resumed | {"load_average": pytest.approx([0] * 3, abs=1e9)}
    assert len(measured) == count, "a third run measures nothing"


def test_the_command_says_that_nothing_is_lost(tiny, tmp_path, monkeypatch):
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Gauge, "first", stop)
    args = ["--model", tiny, "--methods", "taylorseer", "--steps", "8", "--samples", "4", "--quick", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, ["bench", *args])
    assert done.exit_code == 130 and "the same command goes on from here" in done.output


def test_what_there_is_no_time_for_is_named_and_measured_later(task, tmp_path):
    short = started(task, tmp_path, replace(SMALL, minutes=1e-6)).run()
    assert short["rows"] == [] and "taylorseer interval=4" in short["left_out"]
    more = started(task, tmp_path, replace(SMALL, minutes=60)).run()
    assert more["left_out"] == [] and more["rows"]


def test_a_method_that_breaks_is_named_and_tried_again(task, tmp_path):
    before, broken = dict(registry.METHODS), [True]

    @omnicache.method("breaks", off_reason="a test")
    def breaks() -> Plan:
        """Fails at first."""
        if broken[0]:
            raise ZeroDivisionError("its own fault")
        return Plan("breaks")

    try:
        found = started(task, tmp_path, names=["breaks"]).run()
        assert {"method": "breaks", "why": "It failed with ZeroDivisionError: its own fault"} in found["skipped"]
        broken[0] = False
        found = started(task, tmp_path, names=["breaks"]).run()
        assert not found["skipped"] and any(row["method"] == "breaks" for row in found["rows"])
    finally:
        registry.METHODS.clear()
        registry.METHODS.update(before)


def test_a_calibrated_plan_is_kept_and_half_of_one_is_made_again(task, tmp_path, monkeypatch):
    plans, setting = Plans(task, 1, tmp_path), Setting("teacache", {"reuse": 0.5})
    plan = plans.of(setting, "key")
    assert Plan.load(tmp_path / "key.plan.json") == plan
    whole, calls = omnicache.calibrate, []
    monkeypatch.setattr(omnicache, "calibrate", lambda *a, **more: calls.append(1) or whole(*a, **more))
    assert plans.of(setting, "key") == plan and calls == []
    (tmp_path / "key.plan.json").write_text((tmp_path / "key.plan.json").read_text()[:40])
    assert plans.of(setting, "key").options.keys() == plan.options.keys() and calls == [1]
    assert plans.of(Setting("teacache", {"threshold": 0.2}), "other").options["threshold"] == 0.2
    assert calls == [1, 1], "what is an option of the calibration, too, is given to it"
    assert plans.of(Setting("teacache", {"warmup": 2}), "third").options["warmup"] == 2 and calls == [1, 1]
    with pytest.raises(OmniCacheError, match="U-Net"):
        plans.of(Setting("deepcache", {}), "none")


def test_a_result_belongs_to_its_method_model_and_settings(task, tiny):
    setting = Setting("taylorseer", {"interval": 3})
    key = key_of(setting, task, SIZE)
    assert key == key_of(setting, Task(tiny, zoo.load(tiny), 4, 8), SIZE)
    others = [
        key_of(Setting("taylorseer", {"interval": 4}), task, SIZE),
        key_of(Setting("hicache", {"interval": 3}), task, SIZE),
        key_of(setting, task, replace(SIZE, batch=1)),
        key_of(setting, Task(tiny, task.pipe, 4, 9), SIZE),
        key_of(setting, Task(tiny, task.pipe, 4, 8, guidance=3.0), SIZE),
        key_of(setting, Task(tiny, task.pipe, 3, 8), SIZE),
    ]
    with torch.no_grad():
        next(task.pipe.transformer.parameters()).add_(0.1)
    others.append(key_of(setting, task, SIZE))
    assert len({key, *others}) == 8


def test_memory_is_worked_out_at_three_sizes_and_the_model_is_as_before(task):
    plan = omnicache.methods()["fora"].plan()
    before = task.pipe.transformer.config.sample_size
    one, two, four = held(task, plan, 16)
    assert one and two == 4 * one and four == 16 * one
    assert task.pipe.transformer.config.sample_size == before
    with omnicache.cache(task.pipe, plan) as run:
        task.draw(0, 1)
    assert run.cache_bytes == one


def test_guidance_is_refused_where_a_model_takes_none(task, tiny, monkeypatch):
    monkeypatch.setattr(zoo, "call", lambda name: {"class_labels": [0], "num_inference_steps": 8})
    with pytest.raises(OmniCacheError, match="takes no guidance"):
        Task(tiny, task.pipe, 2, guidance=2.0)


def test_another_model_is_refused():
    done = CliRunner().invoke(app, ["bench", "--model", "nothing"])
    assert isinstance(done.exception, OmniCacheError) and "omnicache doctor nothing" in str(done.exception)


def test_how_far_it_is(task, tmp_path):
    heard: list[tuple[str, int, int, float | None]] = []
    bench = Bench(task, tmp_path, ["taylorseer"], SMALL, lambda *said: heard.append(said))
    bench.run()
    assert heard[0][0] == "uncached samples" and heard[-1][0] == "done"
    assert heard[-1][1] == heard[-1][2] and heard[-1][3] == 0
    assert all(left is None or left >= 0 for *_, left in heard) and heard[3][3] is not None
    counts = [done for _, done, _, _ in heard]
    assert counts == sorted(counts)
    assert time_left(None) == "time left not known yet"
    assert (time_left(40), time_left(600)) == ("about 40 s left", "about 10 min left")
