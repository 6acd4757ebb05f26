"""The comparison with peers from its first process to its page, on very few steps and inputs."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from omnicache.cli import app, bench_peers
from omnicache.errors import OmniCacheError
from omnicache.measure.peers import CONTENDERS, Peers, Size
from omnicache.measure.peers import work as peers_work
from omnicache.measure.peers.contender import Setting
from omnicache.measure.peers.work import modules_of
from omnicache.measure.peers.worker import Gone, Refused
from omnicache.report import write_peers

from ...report.browser import CHROMIUM, WHY_NOT, assert_fits, looked_at

for package in ("diffusers", "altair", "jinja2", "vl_convert", "torchmetrics"):
    pytest.importorskip(package)

MADE_UP, FEWER = "tests.measure.peers.made_up", CONTENDERS["fewer-steps"]
SIZE = Size(samples=2, tuning=2, batch=2, first_pairs=2, finalists=2, final_pairs=1, pairs=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("peers")


@pytest.fixture(scope="module")
def result(folder):
    return Peers("emoji", folder, SIZE, steps=5, goals=(12.0, 90.0), contenders=[MADE_UP, FEWER]).run()


def test_every_setting_is_a_row_with_what_became_of_it(result):
    states = {row["label"]: row["state"] for row in result["rows"] if row["contender"] == "made up"}
    assert states["raise"] == "refused"
    assert states["made for 12 dB"] == states["noise"] == "measured"
    why = {row["label"]: row.get("why") for row in result["rows"]}
    assert re.fullmatch(r"It raises KeyError here \(peers/made_up\.py, line \d+\): 'no such block'", why["raise"])
    fewer = [row for row in result["rows"] if row["contender"] == "fewer-steps"]
    assert [row["options"]["steps"] for row in fewer] and all(row["state"] == "measured" for row in fewer)


def test_a_setting_that_changes_nothing_has_all_its_pictures_the_same(result):
    row = next(row for row in result["rows"] if row["label"] == "nothing")
    assert row["psnr"]["mean"] == 100.0
    faster = any(uncached / cached >= 1.02 for uncached, cached in row["pairs"])  # by chance, on a busy machine
    assert row["state"] == "nothing" or (row["state"] == "measured" and faster)


def test_broken_pictures_are_as_unlike_as_can_be(result):
    row = next(row for row in result["rows"] if row["label"] == "noise")
    assert row["psnr"]["mean"] < 12 and row["settled"] and len(row["pairs"]) == 1
    assert all(not row["settled"] for row in result["rows"] if row["options"].get("goal")), "whoever made it has chosen it"


def test_what_was_chosen_is_measured_on_held_out_inputs_and_in_a_duel(result):
    for one in result["chosen"]:
        if one["label"] is not None:
            assert one["held"]["samples"] == SIZE.samples and len(one["held"]["pairs"]) == SIZE.pairs
    assert {(one["goal"], one["contender"]) for one in result["chosen"]} == {
        (g, c) for g in (12, 90) for c in ("made up", "fewer-steps")
    }
    unreachable = next(one for one in result["chosen"] if one["goal"] == 90 and one["contender"] == "fewer-steps")
    assert unreachable["label"] is None and (unreachable["nearest"] is None or unreachable["nearest"]["psnr"]["mean"] < 90)
    assert all(duel["goal"] == 12 and duel["pairs"] == SIZE.pairs for duel in result["duels"])


def test_the_fastest_are_timed_again_before_one_is_chosen(result):
    for row in result["rows"]:
        if "first_pairs" in row:
            assert len(row["pairs"]) == row["first_pairs"] + SIZE.final_pairs
            equal = row["psnr"]["mean"] == 100  # what changes nothing needs more pairs to count as faster, as it may by chance
            assert row["first_pairs"] == SIZE.first_pairs or (equal and row["first_pairs"] > SIZE.first_pairs)
    chosen = {one["label"]: one for one in result["chosen"] if one["contender"] == "fewer-steps" and one["label"] is not None}
    for label, one in chosen.items():
        row = next(row for row in result["rows"] if row["label"] == label)
        assert one["tuning"]["speedup"] == row["speedup"]


def test_the_worst_verdict_comes_first(result):
    if any(one["goal"] == 90 and one["label"] is not None for one in result["chosen"]):
        pytest.skip("what changes nothing has seemed faster, on a busy machine")
    assert result["verdicts"][0]["outcome"] == "misses", "nothing but all steps is like at 90 dB"
    assert len(result["verdicts"]) == 2
    json.dumps(result, allow_nan=False)


def test_the_same_command_measures_nothing_again(result, folder):
    lines = (folder / "peers.jsonl").read_text()
    again = Peers("emoji", folder, SIZE, steps=5, goals=(12.0, 90.0), contenders=[MADE_UP, FEWER]).run()
    assert (folder / "peers.jsonl").read_text() == lines
    assert again["rows"] == result["rows"] and again["chosen"] == result["chosen"] and again["duels"] == result["duels"]


def test_time_that_one_contender_has_left_is_the_others(tmp_path, monkeypatch):
    peers = Peers("emoji", tmp_path, replace(SIZE, minutes=1), steps=5, contenders=[MADE_UP, FEWER])
    count = {MADE_UP: 20, FEWER: 2}
    listed = lambda entry: [Setting({"n": i}, f"{i}") for i in range(count[entry.module])]  # noqa: E731
    monkeypatch.setattr(peers, "_open", lambda entry, pool: entry.settings.extend(listed(entry)))
    monkeypatch.setattr(peers, "_row", lambda *about: peers.clock.add("first", 3.0) or {})
    peers._first(None, None)
    first, second = peers.entries
    assert len(second.rows) == 2 and not second.left_out
    assert 10 <= len(first.rows) <= 12, "33 seconds of 60 are for this, and six of them were the other's"
    assert len(first.rows) + len(first.left_out) == 20


def test_with_more_time_a_plan_is_tuned_for_which_there_was_none(tmp_path, monkeypatch):
    """And one that was made is kept, or all that was measured of it would have to be measured again."""
    asked = []

    class Pool:
        def of(self, module):
            return self

        def settings(self):
            asked.append(module)
            return [Setting({"goal": 30.0, **({"why": "There was no time."} if len(asked) < 2 else {"plan": "p"})}, "tuned")]

    module = CONTENDERS["tuned"]
    for minutes, times in ((1, 1), (1, 1), (2, 2), (4, 2)):
        peers = Peers("emoji", tmp_path, replace(SIZE, minutes=minutes), steps=5, contenders=[module])
        peers._list(peers.entries[0], Pool())
        assert len(asked) == times


def test_what_a_dying_process_takes_is_counted(tmp_path, monkeypatch):
    peers = Peers("emoji", tmp_path, SIZE, steps=5, contenders=[MADE_UP])
    monkeypatch.setattr(peers_work.time, "perf_counter", iter([0.0, 100.0, 200.0, 250.0]).__next__)

    class Pool:
        def of(self, module):
            raise Gone("Its process has ended.")

    row = peers._row(peers.entries[0], Setting({"do": "die"}, "die"), None, None, Pool())
    assert row["why"] == "Its process has ended." and peers.clock.spent == 100.0

    def refused():
        raise Refused("no")

    assert peers._kept("key", "closely", refused) == (None, "no") and peers.clock.spent == 150.0


def test_a_duel_in_which_a_process_dies_tells_the_reason(result, folder, tmp_path, monkeypatch):
    if not result["duels"]:
        pytest.skip("nothing has seemed faster than uncached, on a busy machine")
    copy = tmp_path / "again"
    shutil.copytree(folder, copy)
    lines = (copy / "peers.jsonl").read_text().splitlines(keepends=True)
    kept = [line for line in lines if not str(json.loads(line).get("key", "")).startswith("duel ")]
    (copy / "peers.jsonl").write_text("".join(kept))

    def dead(*_):
        raise Refused("Its process has ended.")

    monkeypatch.setattr(peers_work, "_wearing", dead)
    again = Peers("emoji", copy, SIZE, steps=5, goals=(12.0, 90.0), contenders=[MADE_UP, FEWER]).run()
    assert len(again["duels"]) == len(result["duels"]) > 0
    assert {duel["why"] for duel in again["duels"]} == {"Its process has ended."}
    assert "Its process has ended." in write_peers(again, tmp_path).read_text(encoding="utf-8")


def test_the_page_says_the_worst_first_and_opens_offline(result, tmp_path):
    page = write_peers(result, tmp_path).read_text(encoding="utf-8")
    assert page.index("falls short") < page.index("At 12 dB, on held-out inputs")
    assert "It raises KeyError here" in page and "): &#39;no such block&#39;" in page and "What does not apply, and why" in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org/", "")


def test_the_page_names_the_methods_that_are_not_tried(result, tmp_path):
    it = peers_work.contender(CONTENDERS["methods"])
    assert "magcache" in it.untried and "taylorseer" not in it.untried and "omnicache-optimal" not in it.untried
    told = [{**one, "untried": it.untried} for one in result["contenders"]]
    assert it.untried in write_peers({**result, "contenders": told}, tmp_path).read_text(encoding="utf-8")


@pytest.mark.skipif(CHROMIUM is None, reason=WHY_NOT)
@pytest.mark.parametrize("outcome", ["as it came", "open"])
def test_in_a_browser_the_page_fits(result, tmp_path, outcome):
    verdicts = result["verdicts"] if outcome != "open" else [one | {"outcome": "open"} for one in result["verdicts"]]
    page = write_peers(result | {"verdicts": verdicts}, tmp_path).read_text(encoding="utf-8")
    assert (": not all of it was measured</h1>" in page) == (outcome == "open")
    page = page.replace("style-src 'unsafe-inline'", "style-src 'unsafe-inline'; script-src 'unsafe-inline'")
    opened = 'document.querySelectorAll("details").forEach(function (d) { d.open = true; }); return {};'
    assert_fits(looked_at(page, tmp_path, opened))


def test_a_package_that_is_not_there_is_named_with_what_to_type(tmp_path, monkeypatch):
    absent = replace(peers_work.contender(CONTENDERS["cache-dit"]), package="no-such-package-at-all")
    monkeypatch.setattr(peers_work, "contender", lambda module: absent)
    work = Peers("emoji", tmp_path, SIZE, contenders=["x"])
    work._open(work.entries[0], None)  # type: ignore[arg-type]
    assert work.entries[0].why is not None and 'pip install "omnicache[peers]"' in work.entries[0].why


def test_contenders_are_named_by_their_files():
    assert modules_of(["cache-dit", "fewer-steps"]) == [CONTENDERS["tuned"], FEWER, CONTENDERS["cache-dit"]]
    with pytest.raises(OmniCacheError, match="There is no contender 'cache-dot'"):
        modules_of(["cache-dot"])


def test_the_command_writes_both_files_and_one_object(result, folder, tmp_path, monkeypatch):
    class Known(Peers):
        def __init__(self, *args, **kwargs):
            pass

        def run(self):
            return dict(result)

    monkeypatch.setattr(bench_peers, "Peers", Known)
    done = CliRunner().invoke(app, ["bench", "--peers", "--quick", "--json", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["verdicts"] == result["verdicts"]
    assert json.loads((tmp_path / "peers.json").read_text())["rows"] == result["rows"]
    assert (tmp_path / "peers.html").exists()
