"""Law 1: switched off, or with every step computed, a method is bit-identical to no cache."""

from __future__ import annotations

import pytest
import torch
from tests.laws.table import ROWS, Case, Subject, always, strips

import omnicache

LAW = 1


def test_off_and_always_are_bit_identical(case: Case, subject: Subject) -> None:
    plain = subject.draw()
    for plan in (subject.row.off(subject.pipe.total), always(subject.plan())):
        with omnicache.cache(subject.target, plan) as run:
            assert torch.equal(subject.draw(), plain)
        assert set("".join(strips(run))) == {"#"}

    # And caching is not, or all this would say nothing.
    with omnicache.cache(subject.target, subject.plan()) as run:
        assert torch.equal(subject.draw(), plain) == (case.row == "none") or subject.row.lossless
    reused = case.row not in ("none", "fewer-steps")
    some = any if subject.row.apart and case.guidance != "batched" else all
    assert some(set(strip) != {"#"} for strip in strips(run)) == reused


@pytest.mark.parametrize("name", sorted(ROWS))
def test_every_method_says_how_to_switch_it_off(name: str) -> None:
    entry = omnicache.methods()[ROWS[name].method]
    assert entry.off is not None or entry.off_reason
