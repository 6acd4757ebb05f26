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


def test_nothing_tells_where_it_was_made():
    assert len(TEXTS) > 20
    told = {path.name: re.findall(r'[ "]/\w+/[^" ]*', path.read_text(encoding="utf-8")) for path in TEXTS}
    assert {name: found for name, found in told.items() if found} == {}
