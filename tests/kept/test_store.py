"""Results that outlive the process, a line each."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from omnicache.kept.store import Store


def test_what_was_put_is_there_again_and_the_newest_counts(tmp_path):
    store = Store(tmp_path / "a" / "rows.jsonl")
    assert store.get("x") is None
    store.put("x", {"value": 1.5, "each": (1, 2)})
    store.put("y", {"value": 2})
    assert store.put("x", {"value": 3}) == {"key": "x", "value": 3}
    again = Store(tmp_path / "a" / "rows.jsonl")
    assert again.get("x") == {"key": "x", "value": 3} and again.get("y") == {"key": "y", "value": 2}


@pytest.mark.parametrize("cut", [1, 5, 12])
def test_a_line_that_was_cut_short_costs_itself_only(tmp_path, cut):
    path = tmp_path / "rows.jsonl"
    for key in "abc":
        Store(path).put(key, {"value": key})
    path.write_text(path.read_text()[:-cut])
    store = Store(path)
    lost = cut > 1  # one: only the line's end is gone
    assert (store.get("c") is None) == lost and store.get("b") is not None
    store.put("d", {"value": "d"})
    again = Store(path)
    assert again.get("d") is not None and again.get("a") is not None and (again.get("c") is None) == lost


def test_killing_the_process_loses_nothing_that_was_put(tmp_path):
    path = tmp_path / "rows.jsonl"
    code = (
        "import sys, itertools\nfrom omnicache.kept.store import Store\nstore = Store(sys.argv[1])\n"
        "for i in itertools.count():\n    store.put(str(i), {'text': 'x' * 5000})\n    print(i, flush=True)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    told = [child.stdout.readline() for _ in range(20)]
    child.send_signal(signal.SIGKILL)
    told += child.stdout.read().splitlines()
    child.wait()
    store = Store(path)
    assert len(told) >= 20
    for i in range(len(told)):
        assert store.get(str(i)) == {"key": str(i), "text": "x" * 5000}
