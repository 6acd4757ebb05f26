"""Results that are taken over into the repository."""

import json
import re
from pathlib import Path

import pytest
from benchmarks import choosing

ROOT = Path(__file__).parents[2]
PLACES = ("benchmarks/results/*.json", "zoo/*/*/config.json", "src/omnicache/zoo/*/*/config.json")
TEXTS = [path for place in PLACES for path in ROOT.glob(place)]


@pytest.mark.parametrize(
    ("told", "name"),
    [({"model": "m", "rows": []}, "bench-m.json"), ({"model": "m", "steps": 20, "duels": [], "rows": []}, "peers-m-20.json")],
)
@pytest.mark.parametrize("out", ["--out=/tmp/x", "--out /tmp/x"])
def test_a_result_is_taken_over_without_the_folder_it_was_written_to(tmp_path, monkeypatch, told, name, out):
    monkeypatch.setattr(choosing, "RESULTS", tmp_path)
    (tmp_path / "made.json").write_text(json.dumps({**told, "command": f"omnicache bench {out} --steps 20"}, indent=2))
    into = choosing.take(tmp_path / "made.json")
    assert into.name == name
    assert json.loads(into.read_text()) == {**told, "command": "omnicache bench --steps 20"}


def test_of_a_setting_only_what_is_told_is_taken_over(tmp_path, monkeypatch):
    monkeypatch.setattr(choosing, "RESULTS", tmp_path)
    row = {"label": "a", "options": {"threshold": 0.005}, "psnr": {"mean": 31.23456}, "pairs": [[1.0, 0.5]], "load": 1.0}
    result = {"model": "m", "steps": 20, "duels": [], "rows": [row], "command": ""}
    (tmp_path / "made.json").write_text(json.dumps(result))
    taken = json.loads(choosing.take(tmp_path / "made.json").read_text())
    assert taken["rows"] == [{"label": "a", "options": {"threshold": 0.005}, "psnr": {"mean": 31.23}}]


def test_the_closest_race_comes_first_and_what_has_no_rival_says_so():
    def chosen(goal, contender, kind, label="b"):
        held = {"speedup": {"median": 3.0, "low": 2.0, "high": 4.0}, "psnr": {"mean": 31.0, "low": 30.0, "high": 32.0}}
        return {"goal": goal, "contender": contender, "kind": kind, "label": label, "held": held}

    def duel(goal, kind, median):
        return {"goal": goal, "kind": kind, "rival": "r", "label": "s", "ratio": {"median": median, "low": 1.0, "high": 2.0}}

    result = {
        "model": "m",
        "steps": 20,
        "judged": "ours",
        "verdicts": [{"goal": 30}, {"goal": 25}],
        "chosen": [*(chosen(goal, "ours", "ours") for goal in (30, 25)), chosen(25, "r", "peer"), chosen(25, "r", "peer", None)],
        "duels": [duel(30, "fewer steps", 1.5), duel(25, "fewer steps", 1.1)],
    }
    first, second = choosing.glance([result]).splitlines()[2:]
    assert first == ("| `m`, 20 steps | 25 dB | 3.00× | 31.0 dB | not measured | 1.10 [1.00, 2.00] s |")
    assert "| 30 dB |" in second and "| none reaches it |" in second


def test_nothing_tells_where_it_was_made():
    assert len(TEXTS) > 20
    told = {path.name: re.findall(r'[ "]/\w+/[^" ]*', path.read_text(encoding="utf-8")) for path in TEXTS}
    assert {name: found for name, found in told.items() if found} == {}
