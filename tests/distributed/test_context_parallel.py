"""Two processes that each hold half of the tokens decide alike, step by step, and as one process does. And they finish."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

import omnicache
from omnicache.errors import OmniCacheError

from ..methods.tiny import Pipe, dit
from .worker import APART, CASES, FLUX, ROW, work

pytestmark = pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="needs torch's gloo")
LONGEST = 150  # seconds for both processes and all cases, which take a tenth of it: then whoever still waits is stopped


class Found(dict[str, list[dict[str, Any]]]):
    """By case, what each rank saw. After a case that was not finished, there are no more."""

    def __init__(self, why: str, done: dict[str, list[dict[str, Any]]]):
        super().__init__(done)
        self.why = why

    def __missing__(self, name: str) -> Any:
        pytest.fail(f"The ranks did not get here. {self.why}")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    folder = tmp_path_factory.mktemp("ranks")
    context: Any = mp.spawn(work, (str(folder),), nprocs=2, join=False)
    end = time.monotonic() + LONGEST
    try:
        while time.monotonic() < end and not context.join(timeout=1):
            pass
    except Exception as problem:  # what went wrong on one rank; the other is stopped by torch
        (folder / "problem").write_text(str(problem))
    finally:
        for process in context.processes:
            process.kill()
            process.join()
    files = {name: [folder / f"{name} {rank}.json" for rank in (0, 1)] for name in CASES}
    done = {name: [json.loads(f.read_text()) for f in two] for name, two in files.items() if all(f.exists() for f in two)}
    why = (folder / "problem").read_text() if (folder / "problem").exists() else "they were stopped"
    return Found(why, done)


def ranks(found: Found, name: str) -> tuple[list[str], str]:
    """The steps of both ranks, and those of one process."""
    first, second = found[name]
    assert first["single"] == second["single"]
    return [first["split"]["computed"], second["split"]["computed"]], first["single"]["computed"]


SPLIT = [f"row: {name}" for name in ROW if name != "own signal"] + [f"flux: {name}" for name in FLUX] + ["wan: fora"]


@pytest.mark.parametrize("name", SPLIT)
def test_ranks_agree(found, name):
    """With each other and with one process, in what they compute and in what comes out."""
    both, single = ranks(found, name)
    assert both == [single, single]
    assert "." in single or "?" in single
    for rank in found[name]:
        torch.testing.assert_close(*(torch.tensor(rank[k]["out"]) for k in ("split", "single")), atol=1e-4, rtol=1e-4)


def test_a_block_that_takes_its_part_is_computed_and_those_after_it_reused(found):
    """What goes into it is whole and what comes out is not, so their difference says nothing."""
    both, single = ranks(found, "wan: teacache")
    assert both == [single.replace(".", "o")] * 2
    assert "." in single


def test_a_signal_that_knows_of_no_ranks_is_agreed_on_all_the_same(found):
    """Their mean: the ranks are together, if not where one process is."""
    both, _ = ranks(found, "row: own signal")
    assert both[0] == both[1]
    assert {"#", "."} == set(both[0])


@pytest.mark.parametrize("name", APART)
def test_without_each_other_they_decide_otherwise(found, name):
    """Or else the tests above would show nothing."""
    both, _ = ranks(found, f"apart: {name}")
    assert both[0] != both[1]


@pytest.mark.parametrize(("name", "step"), [("teacache", 4), ("speca", 5)])
def test_nan_on_one_rank_makes_all_compute(found, name, step):
    """A change that is not a number computes the step and the next, to which it is compared; a draft so checked, the next."""
    both, single = ranks(found, f"lost: {name}")
    assert both[0] == both[1]
    first = step if name == "teacache" else step + 1
    assert both[0][:first] == single[:first]
    assert single[first] != "#" and both[0][first] == "#"
    assert "." in both[0][step + 2 :]


def test_a_proof_that_fails_on_one_rank_fails_on_all(found):
    both, single = ranks(found, "lost: the proof")
    assert single[:2] == "#."
    assert both[0] == both[1] == "##" + single[2:]


def test_what_one_rank_takes_for_written_all_do(found):
    """Where writes are not counted, values tell, and NaN differs from itself: a block would be learned on one rank only."""
    both, _ = ranks(found, "lost: the first step, blindly")
    assert both[0] == both[1]
    assert "." in both[0]


def test_what_one_rank_does_not_know_all_compute(found):
    both, _ = ranks(found, "lost: a shape")
    assert both[0] == both[1]
    assert both[0][5] == "#"


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("row: fora", 0),
        ("row: fora, stack", 1),
        ("flux: fora, stack", 1),
        ("flux: taylorseer", 1),
        ("row: omnicache-trajectory", 1),
    ],
)
def test_methods_that_look_at_nothing_send_nothing(found, name, most):
    """But the one proof, whatever the number of runs."""
    assert [rank["split"]["messages"] for rank in found[name]] == [most, most]
    assert [rank["single"]["messages"] for rank in found[name]] == [0, 0]


@pytest.mark.parametrize(("name", "rows"), [("row: teacache", 1), ("flux: teacache", 2)])
def test_a_signal_is_one_message_a_step(found, name, rows):
    """Besides the proof; at the first step no row of blocks knows of a change, and all are asked."""
    steps = len(found[name][0]["split"]["computed"])
    assert found[name][0]["split"]["messages"] == steps + 1 + (rows - 1)


def test_a_group_is_a_process_group():
    with pytest.raises(OmniCacheError, match=r"dist\.group\.WORLD.* not int"):
        omnicache.enable(Pipe(dit()), "fora", group=-100)  # what torch gives a rank that is not in the group


def test_a_split_that_cannot_be_read_is_refused():
    pipe = Pipe(dit())
    pipe.model._parallel_config = type("Parallel", (), {"context_parallel_config": object()})()
    with pytest.raises(OmniCacheError, match="group=process_group"):
        omnicache.enable(pipe, "fora")
    with pytest.raises(OmniCacheError, match="group=process_group"):
        omnicache.calibrate(pipe, [1], "teacache")
