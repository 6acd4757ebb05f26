"""Law 3: the second run equals the first, and a cancelled run leaves no trace in the next."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import omnicache
from tests.laws.table import Case, Subject, strips

LAW = 3


class Cancelled(Exception):
    pass


def test_the_second_run_equals_the_first(case: Case, subject: Subject) -> None:
    with omnicache.cache(subject.target, subject.plan()) as run:
        first, seen = subject.draw(), strips(run)
        assert torch.equal(subject.draw(), first)
        assert strips(run) == seen


@pytest.mark.parametrize("after", [0, 4])
def test_a_cancelled_run_leaves_no_trace(case: Case, subject: Subject, after: int) -> None:
    """Cancelled between two steps, as a callback or a user does it; the next run draws something else."""

    def cancel(step: int, _: Any) -> None:
        if step == after:
            raise Cancelled

    plan = subject.plan()
    with omnicache.cache(subject.target, plan) as run:
        clean, seen = subject.draw(), strips(run)
    with omnicache.cache(subject.target, plan) as run:
        with pytest.raises(Cancelled):
            subject.sample(seeds=(7,), labels=(5,), after=cancel)
        assert torch.equal(subject.draw(), clean)
        assert strips(run) == seen
        assert run.sessions[0].bytes() == 0
