"""Gives every law its cases: a test that takes ``case`` runs over those of the law that its file states; one that is marked
``once``, over one of each method."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.laws.table import ROWS, Case, Subject, all_cases, cover

import omnicache


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        every = metafunc.config.getoption("--all-combinations")
        cases = all_cases() if every else cover()[metafunc.module.LAW]
        if metafunc.definition.get_closest_marker("once") is not None and not every:
            cases = list({case.row: case for case in cases}.values())
        metafunc.parametrize("case", cases, ids=str)


@pytest.fixture
def subject(case: Case) -> Iterator[Subject]:
    """A fresh model for the case, left without a cache whatever happened."""
    made = Subject(case, ROWS[case.row])
    yield made
    omnicache.disable(made.target)
