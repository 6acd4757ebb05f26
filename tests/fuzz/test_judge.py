"""The judge must see what is wrong: the library is broken on purpose, one way at a time, and a law must be violated."""

from __future__ import annotations

from typing import Any

import pytest
from tests.fuzz.faults import Fault, check_fault
from tests.fuzz.models import Toy, twin_of
from tests.fuzz.oracle import Violation, check
from tests.fuzz.worlds import Act, Case, Run

from omnicache.granularity import MLP, Attention, Stack
from omnicache.policy import Policy
from omnicache.predictors import Hold, Residual
from omnicache.runtime import evaluation, hook, run, store
from omnicache.runtime.executors import base
from omnicache.triggers import Every

ROW = (Policy(Every(3), Stack(), Residual(Hold())),)
HELD = (Policy(Every(3), Stack(), Hold()),)
PARTS = (Policy(Every(3), Attention() | MLP(), Hold()),)


KEPT: list[Any] = []


def leaks(self: Any) -> None:
    """In place of ``Run.free``."""
    KEPT.append(list(self.branches.values()))


def one_branch(self: Any, index: int, call: Any) -> int:
    """In place of ``Run._branch``."""
    self.at = index
    return 0


@pytest.fixture(autouse=True)
def _afresh():
    """What is broken stays so in the models that cases share."""
    yield
    KEPT.clear()
    twin_of.cache_clear()


BREAKS: dict[str, tuple[Any, str, Any, Case]] = {
    "nothing is copied": (base, "own", lambda tensors: tensors, Case(Toy(writes="a part's output"), plan=PARTS)),
    "a write goes unseen": (store.Lent, "spoiled", lambda _: False, Case(Toy(writes="after the blocks"), plan=HELD)),
    "nothing is freed": (run.Run, "free", leaks, Case(plan=ROW)),
    "nothing is proved": (evaluation.Pass, "proves", lambda *_: False, Case(Toy(reads="the first block"), plan=ROW)),
    "all calls are one": (evaluation.Pass, "turn", lambda *_: 0, Case(Toy(twice=True), plan=PARTS)),
    "branches are one": (run.Run, "_branch", one_branch, Case(plan=ROW, acts=(Act(run=Run(guidance="calls")),))),
    "hooks stay": (hook.Hook, "remove", lambda _: None, Case(plan=ROW)),
    "inputs are no part": (Residual, "needs_input", False, Case(Toy(writes="its input"), plan=ROW)),
    "nothing is counted": (evaluation.Pass, "count", lambda *_: None, Case(plan=ROW)),
}


@pytest.mark.parametrize("name", BREAKS)
def test_what_is_broken_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, what, instead, case = BREAKS[name]
    assert check(case) == "reused"
    monkeypatch.setattr(owner, what, instead)
    with pytest.raises((Violation, TypeError)):
        check(case)


def test_a_run_that_an_exception_leaves_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    given = Case(plan=ROW, laws=()), Fault("raise", 0.0, 2)
    assert check_fault(given) == "raise"
    monkeypatch.setattr(run.Run, "free", leaks)
    with pytest.raises(Violation):
        check_fault(given)
