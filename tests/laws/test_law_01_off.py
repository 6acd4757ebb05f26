"""Law 1: switched off, or with every step computed, a method is bit-identical to no cache."""

from __future__ import annotations

import pytest
import torch

import omnicache
from tests.laws.table import ROWS, Case, Subject, always, strips

LAW = 1


def test_off_is_bit_identical(case: Case, subject: Subject) -> None:
    plain = subject.draw()
    with omnicache.cache(subject.target, subject.row.off(subject.pipe.total)) as run:
        assert torch.equal(subject.draw(), plain)
    assert set("".join(strips(run))) == {"#"}


def test_computing_always_is_bit_identical(case: Case, subject: Subject) -> None:
    plain = subject.draw()
    with omnicache.cache(subject.target, always(subject.plan())) as run:
        assert torch.equal(subject.draw(), plain)
    assert set("".join(strips(run))) == {"#"}


def test_caching_is_not(case: Case, subject: Subject) -> None:
    """Else the two above, and most laws, would say nothing."""
    plain = subject.draw()
    with omnicache.cache(subject.target, subject.plan()) as run:
        assert torch.equal(subject.draw(), plain) == (case.row == "none")
    reused = case.row not in ("none", "fewer-steps")
    assert all((set(strip) != {"#"}) == reused for strip in strips(run))


@pytest.mark.parametrize("name", sorted(ROWS))
def test_every_method_says_how_to_switch_it_off(name: str) -> None:
    entry = omnicache.methods()[ROWS[name].method]
    assert entry.off is not None or entry.off_reason
