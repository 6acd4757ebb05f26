"""Law 3: the second run equals the first, and a cancelled run leaves no trace in the next."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.laws.table import Case, Subject, strips

import omnicache

LAW = 3


class Cancelled(Exception):
    pass


def test_the_second_run_equals_the_first_whatever_was_cancelled_between(case: Case, subject: Subject) -> None:
    """Cancelled between two steps, as a callback or a user does it, while it drew something else."""
    with omnicache.cache(subject.target, subject.plan()) as run:
        first, seen = subject.draw(), strips(run)
        assert torch.equal(subject.draw(), first)
        for last in (0, 3):

            def cancel(step: int, _: Any) -> None:
                if step == last:
                    raise Cancelled

            with pytest.raises(Cancelled):
                subject.sample(seeds=(7,), labels=(5,), after=cancel)
            assert torch.equal(subject.draw(), first)
            assert strips(run) == seen
            assert run.sessions[0].bytes() == 0
