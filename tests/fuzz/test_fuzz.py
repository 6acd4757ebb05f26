"""Over a hundred random cases, always the same ones; ``make fuzz`` runs ten thousand."""

from __future__ import annotations

import pytest
from diffusers.utils import logging
from tests.fuzz.__main__ import batch, names
from tests.fuzz.worlds import Case

BATCHES = range(5)


@pytest.fixture(autouse=True)
def _quietly():
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    yield
    logging.set_verbosity(before)


@pytest.mark.parametrize("number", BATCHES)
def test_no_law_is_violated(number: int) -> None:
    outcomes, violated = batch(number, size=25)
    assert not violated, "\n".join(f'{why}\n  python -m tests.fuzz --case "{case}"' for why, case in violated)
    assert outcomes["reused"] >= 4, f"too few of the cases reuse anything: {outcomes}"


def test_a_case_can_be_pasted() -> None:
    assert eval(repr(Case()), names()) == Case()
