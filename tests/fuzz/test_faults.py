"""Some faults, always the same ones; ``make fuzz`` injects a thousand."""

from __future__ import annotations

import json

import pytest
from diffusers.utils import logging
from tests.fuzz.__main__ import batch
from tests.fuzz.faults import Fault, check_fault, hostile, loaded, written
from tests.fuzz.models import Toy
from tests.fuzz.worlds import Case

import omnicache
from omnicache.granularity import Stack
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.predictors import Hold, Residual
from omnicache.triggers import Every


@pytest.fixture(autouse=True)
def _quietly():
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    yield
    logging.set_verbosity(before)


@pytest.mark.parametrize("number", range(3))
def test_no_fault_leaves_anything_behind(number: int) -> None:
    outcomes, violated = batch(number, size=50, kind="faults")
    assert not violated, "\n".join(f'{why}\n  python -m tests.fuzz --case "{case}"' for why, case in violated)
    assert sum(n for what, n in outcomes.items() if what not in ("refused", "missed")) >= 10, outcomes


def test_a_spoiled_file_is_refused_or_another_plan() -> None:
    outcomes, violated = batch(0, size=50, kind="files")
    assert not violated, "\n".join(f'{why}\n  python -m tests.fuzz --case "{case}"' for why, case in violated)
    assert outcomes["refused"] >= 10, outcomes


@pytest.mark.parametrize("name", ["speca", "toca"])
def test_a_hostile_value_is_refused_wherever_it_stands(name: str) -> None:
    text = json.dumps(omnicache.methods()[name].plan().with_measured(figures=[1, {"a": 2}]).to_json())
    for content in hostile(text):
        plan = loaded(content)
        assert plan is None or written(Plan.from_json(plan.to_json())) == written(plan), content


@pytest.mark.parametrize("end", ["[]", "{}", "1e999", "1" + "0" * 400])
def test_a_number_that_no_computer_works_with_is_refused(end: str) -> None:
    text = json.dumps(omnicache.methods()["fora"].plan().to_json())
    for name in ("min_steps", "steps", "interval"):
        place = text.index(f'"{name}": ', text.index("policies") if name == "interval" else 0) + len(name) + 4
        stop = min(text.index(c, place) for c in ",}" if c in text[place:])
        assert loaded((text[:place] + end + text[stop:]).encode()) is None


@pytest.mark.parametrize("number", range(12))
def test_a_run_goes_on_where_there_is_no_memory(number: int) -> None:
    plan = (Policy(Every(2), Stack(), Residual(Hold())),)
    assert check_fault((Case(Toy(), plan=plan, laws=()), Fault("memory", call=number))) == "memory"
