"""Results that are taken over into the repository."""

import json
import re
from pathlib import Path

import numpy
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
        "verdicts": [{"goal": 30}, {"goal": 25}, {"goal": 20}],
        "chosen": [
            *(chosen(goal, "ours", "ours") for goal in (30, 25, 20)),
            *(chosen(25, "r", "peer", label) for label in ("b", None)),
            chosen(30, "r", "peer", None),
        ],
        "duels": [duel(30, "fewer steps", 1.5), duel(25, "fewer steps", 1.1), duel(20, "fewer steps", 1.9)],
    }
    first, second, third = choosing.glance([result]).splitlines()[2:]
    assert first == ("| `m`, 20 steps | 25 dB | 3.00× | 31.0 dB | not measured | 1.10 [1.00, 2.00] s |")
    assert "| 30 dB |" in second and "| none reaches it |" in second
    assert "| 20 dB |" in third and "| none was tried |" in third


@pytest.mark.parametrize("model", ["emoji", "emoji-unet"])
def test_no_method_is_closer_than_the_shortest_path_at_equal_work(model):
    """What docs/choosing.md says, and more than 0.3 dB below the frontier would not do."""
    rows = json.loads((ROOT / "benchmarks" / "results" / f"bench-{model}.json").read_text())["rows"]
    known = [(row["compute_fraction"], row["psnr"]["mean"], row["method"]) for row in rows if row.get("psnr")]
    ours = sorted((work, like) for work, like, name in known if name == "omnicache-optimal")
    others = [(work, like) for work, like, name in known if name != "omnicache-optimal" and 0.2 <= work <= 0.8]
    assert len(others) > 30
    between = numpy.interp([work for work, _ in others], *zip(*ours, strict=True))
    leads = between - numpy.array([like for _, like in others])
    assert min(leads) > {"emoji": 4.4, "emoji-unet": 8.0}[model]


def test_nothing_tells_where_it_was_made():
    assert len(TEXTS) > 20
    told = {path.name: re.findall(r'[ "]/\w+/[^" ]*', path.read_text(encoding="utf-8")) for path in TEXTS}
    assert {name: found for name, found in told.items() if found} == {}
