"""The combinations themselves: every method is in the table, every two of a kind meet, and misfits are refused."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from tests.laws.table import ANY, LAWS, ROWS, Row, all_cases, cover, pairs
from tests.tiny import Pipe, sample

import omnicache


def test_every_registered_method_has_a_row() -> None:
    assert {row.method for row in ROWS.values()} == set(omnicache.methods())


def test_every_method_meets_every_law_at_least_twice() -> None:
    for law, row in itertools.product(LAWS, ROWS):
        cases = [c for c in cover()[law] if c.row == row]
        assert len(set(cases)) == len(cases) >= 2


def test_every_possible_pair_meets() -> None:
    met = {p for law, cases in cover().items() for c in cases for p in pairs(law, c)}
    assert met == {p for law in LAWS for c in all_cases() for p in pairs(law, c)}


@pytest.mark.parametrize(("name", "kind"), [(n, k) for n, row in ROWS.items() for k in ANY if k not in row.kinds])
def test_a_method_that_does_not_apply_says_so_and_changes_nothing(name: str, kind: str) -> None:
    row: Row = ROWS[name]
    pipe = Pipe(kind)
    plain = sample(pipe)

    def looks() -> Any:
        patched = {n: v for n, v in vars(pipe.scheduler).items() if callable(v)}
        return {n: dict(m.__dict__) for n, m in pipe.model.named_modules()}, list(vars(pipe.scheduler)), patched

    before = looks()
    with pytest.raises(omnicache.OmniCacheError) as refusal, omnicache.cache(pipe, row.plan(pipe.total)):
        sample(pipe)  # what a model is given may be what does not fit
    said = str(refusal.value)
    assert row.method in said
    assert type(pipe.model).__name__ in said
    assert said.endswith(".")
    assert looks() == before
    assert torch.equal(sample(pipe), plain)


def test_a_method_on_the_sampler_needs_a_sampler() -> None:
    model = Pipe("dit").model
    with pytest.raises(omnicache.OmniCacheError, match="Pass the pipeline"):
        omnicache.enable(model, "fewer-steps")
