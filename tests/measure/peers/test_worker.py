"""The protocol between the comparison and a contender's process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from omnicache.measure.peers.contender import Setting
from omnicache.measure.peers.scene import Scene, Spec
from omnicache.measure.peers.worker import Gone, Refused, Worker

ROOT, MADE_UP = Path(__file__).parents[3], "tests.measure.peers.made_up"

pytest.importorskip("diffusers")


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    return Spec("emoji", 5, None, samples=2, tuning=2, goals=(30.0,), threads=1, folder=tmp_path_factory.mktemp("peers"))


@pytest.fixture(scope="module")
def log(spec):
    return spec.folder / "logs" / "made-up.txt"


@pytest.fixture(scope="module")
def worker(spec, log):
    with Worker(spec, MADE_UP, log) as started:
        yield started


def test_a_process_draws_what_this_one_would(worker, spec):
    worker.use(None)
    drawn = worker.draw("held", 0, 2)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        expected = Scene(spec).draw("held", 0, 2)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(drawn.made, expected) and drawn.made.shape[0] == 2
    assert 0 < drawn.inside < drawn.whole


def test_tuning_inputs_are_others(worker):
    worker.use(None)
    assert not torch.equal(worker.draw("tuning", 0, 2).made, worker.draw("held", 0, 2).made)


def test_a_setting_holds_until_the_next_one(worker):
    worker.use(None)
    plain = worker.draw("held", 0, 1).made
    worker.use(Setting({"do": "fewer", "steps": 2}, "two steps"))
    assert not torch.equal(worker.draw("held", 0, 1).made, plain)
    worker.use(None)
    assert torch.equal(worker.draw("held", 0, 1).made, plain)


def test_what_a_peer_raises_comes_back_as_its_own_sentence_and_the_process_goes_on(worker):
    with pytest.raises(Refused, match=r"It raises KeyError here .*: 'no such block'"):
        worker.use(Setting({"do": "raise"}, "raise"))
    worker.use(None)
    assert worker.alive and len(worker.draw("held", 0, 1).made) == 1


def test_settings_are_plain_data(worker):
    labels = [setting.label for setting in worker.settings()]
    assert labels == ["made for 30 dB", "nothing", "raise", "noise"]


def test_prints_go_to_the_log(worker, log, capfd):
    worker.use(Setting({"do": "noise"}, "noise"))
    worker.use(None)
    assert capfd.readouterr() == ("", "")
    assert "noise on stdout" in log.read_text() and "noise on stderr" in log.read_text()


def test_classes_here_are_not_those_there(worker):
    from diffusers import DiTPipeline

    worker.use(Setting({"do": "class"}, "class"))
    assert not hasattr(DiTPipeline, "patched")


def test_a_process_that_dies_says_so(spec, log):
    with Worker(spec, MADE_UP, log) as mortal:
        with pytest.raises(Gone, match="ended by itself \\(exit code 3\\)"):
            mortal.use(Setting({"do": "die"}, "die"))
        assert not mortal.alive
        with pytest.raises(Gone, match="ended"):
            mortal.draw("held", 0, 1)


def test_a_model_that_is_not_there_is_refused_with_the_zoos_sentence(spec, log):
    from dataclasses import replace

    with pytest.raises(Refused, match="the zoo has no model"):
        Worker(replace(spec, model="no-such-model"), None, log)


ASKER = """
from pathlib import Path
from omnicache.measure.peers.contender import Setting
from omnicache.measure.peers.scene import Spec
from omnicache.measure.peers.worker import Worker

if __name__ == "__main__":
    folder = Path(__file__).parent
    spec = Spec("emoji", 5, None, samples=2, tuning=2, goals=(30.0,), threads=1, folder=folder)
    worker = Worker(spec, "tests.measure.peers.made_up", folder / "log.txt")
    print(worker._process.pid, flush=True)
    worker.use(Setting({"do": "wait"}, "wait"))
"""


def _works(pid: int) -> bool:
    """Whether there is such a process, and not only its entry, which waits to be taken away."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked up in /proc")
def test_a_process_in_the_middle_of_its_work_ends_when_the_asker_is_killed(tmp_path):
    (tmp_path / "asker.py").write_text(ASKER)
    paths = {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, *filter(None, sys.path))))}
    given = {"stdout": subprocess.PIPE, "text": True, "env": os.environ | paths}
    with subprocess.Popen([sys.executable, str(tmp_path / "asker.py")], **given) as asker:
        asked = int(asker.stdout.readline())
        time.sleep(0.5)  # until it is at work; if it is not yet, it hears of the end from the line
        assert _works(asked)
        asker.kill()
    until = time.monotonic() + 20
    while _works(asked) and time.monotonic() < until:
        time.sleep(0.1)
    assert not _works(asked)
