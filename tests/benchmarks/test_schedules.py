"""The schedules that ``omnicache-optimal`` is compared with: as many computed steps, the first among them, and what makes each."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from benchmarks.schedules import SCHEDULES, accumulated, curvature, length, tables

from omnicache.calibrate.steps.shortest import jumps, shortest, weighed
from omnicache.calibrate.steps.tape import Tape

STEPS = 12


def course(latents, outputs):
    tape = Tape(latents, outputs, None)
    flat = [1.0] * (STEPS + 1)
    return SimpleNamespace(
        uncached=tape, growth=lambda probes: flat, schedules=lambda computed, probes: [shortest(jumps(tape), computed)]
    )


@pytest.fixture
def some():
    draw = torch.Generator().manual_seed(0)
    return course(torch.randn(STEPS + 1, 2, 40, generator=draw).cumsum(0), torch.randn(STEPS, 2, 40, generator=draw).cumsum(0))


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("computed", [2, 3, 5, 8])
def test_a_schedule_computes_the_first_step_and_as_many_as_it_may(some, name, computed):
    for marks in SCHEDULES[name](some, computed):
        assert marks[0] == "#" and marks.count("#") == computed and len(marks) == STEPS


def test_an_accumulated_change_computes_where_outputs_change():
    outputs = torch.ones(STEPS, 1, 4)
    outputs[6:] *= torch.linspace(2, 7, 6)[:, None, None]
    (marks,) = accumulated(course(torch.zeros(STEPS + 1, 1, 4), outputs), 4)
    assert "#" not in marks[1:6] and marks[6] == "#"


def test_curvature_computes_the_bends():
    """A straight path with one corner."""
    along = torch.arange(STEPS + 1.0)
    path = torch.stack([along, (along - 6).clamp_min(0)], 1)[:, None]
    (marks,) = curvature(course(path, torch.zeros(STEPS, 1, 2)), 3)
    assert marks[6] == "#"


def test_the_length_of_a_path_is_what_the_shortest_path_is_shortest_in(some):
    cost = weighed(jumps(some.uncached), [1.0] * (STEPS + 1), 0.5)
    marks = shortest(cost, 4)
    mine = length(cost, [i for i, mark in enumerate(marks) if mark == "#"])
    assert mine == pytest.approx(min(length(cost, [0, *more]) for more in itertools.combinations(range(1, STEPS), 3)))


def test_the_table_has_a_row_for_each():
    span = {"psnr": {"mean": 30.0, "low": 29.0, "high": 31.0}}
    row = {"computed": 3, "label": "evenly", "schedule": "#..#", "samples": 8, "fitted": span, "held": span, "taylor": span}
    made = tables({"m": {"steps": 4, "guidance": 2.0, "unit": "clip", "device": "cpu", "torch": "2", "rows": {"a": row}}})
    assert "4 steps, guidance 2.0, 8 clips" in made
    assert "| 3 | evenly | `#..#` | 30.0 [29.0, 31.0] | 30.0 [29.0, 31.0] | 30.0 [29.0, 31.0] |" in made
