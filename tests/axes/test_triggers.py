"""When to compute."""

import math

import pytest
import torch

from omnicache.policy import Decision, Moment
from omnicache.runtime.decisions import TriggerState
from omnicache.runtime.step import Step
from omnicache.signals import LatentChange
from omnicache.triggers import Accumulate, Between, Every, First, Last, PowerLaw, Ramp, Table, Verify

from ..methods.tiny import full_steps, strip

CHANGE = LatentChange()


def test_every_counts_from_the_last_computed_step():
    assert full_steps(strip(First(3) | Every(5), 20)) == [0, 1, 2, 7, 12, 17]
    assert full_steps(strip(Every(4), 13)) == [0, 4, 8, 12]


def test_every_with_a_phase_is_the_modulus_whoever_else_computed():
    assert full_steps(strip(First(3) | Every(5, phase=0), 20)) == [0, 1, 2, 5, 10, 15]
    assert full_steps(strip(First(1) | Every(5, phase=3), 20)) == [0, 3, 8, 13, 18]
    assert full_steps(strip(First(1) | Every(5, phase=8), 20)) == [0, 3, 8, 13, 18]


def test_every_counted_backwards_ends_on_a_computed_step():
    assert full_steps(strip(First(1) | Every(4, phase=0, backwards=True), 11)) == [0, 2, 6, 10]
    state = TriggerState(First(1) | Every(4, phase=0, backwards=True))
    unknown = "".join(state.decide(Step(i), {}).value for i in range(9))
    assert full_steps(unknown) == [0, 4, 8]  # where nobody said how long the run is, from the front


@pytest.mark.parametrize("count", [1, 2, 4])
def test_first_and_last(count):
    assert full_steps(strip(First(count), 10)) == list(range(count))
    assert full_steps(strip(Last(count), 10)) == [0, *range(10 - count, 10)]
    state = TriggerState(Last(count))
    assert "".join(state.decide(Step(i), {}).value for i in range(10)) == "#........."  # may never come


def test_between_in_steps_and_in_shares_of_the_run():
    assert full_steps(strip(Between(3, 6), 10)) == [0, 3, 4, 5]
    assert full_steps(strip(Between(0.25, 0.5), 20)) == [0, 5, 6, 7, 8, 9]


def test_each_end_of_between_is_an_index_or_a_share_by_itself():
    assert full_steps(strip(Between(10), 14)) == [0, 10, 11, 12, 13]
    assert full_steps(strip(Between(5.0, 10.0), 12)) == [0, 5, 6, 7, 8, 9]
    assert full_steps(strip(Between(2, 0.5), 10)) == [0, 2, 3, 4]
    assert strip(Between(), 6) == "######"


@pytest.mark.parametrize(
    ("trigger", "full"),
    [
        (Between(0.4, 0.6), range(8)),  # any step may lie there
        (Between(3, 0.6), [0, *range(3, 8)]),
        (Between(0.4, 3), range(3)),
        (Between(3, 1.0), [0, *range(3, 8)]),
        (Between(2, 4), [0, 2, 3]),
    ],
)
def test_between_computes_what_may_lie_inside_where_the_length_is_unknown(trigger, full):
    state = TriggerState(trigger)
    assert full_steps("".join(state.decide(Step(i), {}).value for i in range(8))) == list(full)


def test_the_power_law_is_the_released_schedule():
    assert full_steps(strip(PowerLaw(5, 1.4, 15), 50)) == [0, 5, 9, 13, 17, 21, 26, 31, 37, 43]


@pytest.mark.parametrize("total", [8, 20, 25, 50, 99])
@pytest.mark.parametrize("interval", [2, 3, 5, 7])
@pytest.mark.parametrize("center", [0, 4, 7])
def test_the_power_law_computes_as_many_steps_as_the_even_schedule_densest_at_its_center(total, interval, center):
    trigger = PowerLaw(interval, 1.4, center)
    if trigger.misfit(total) is None:
        full = full_steps(strip(trigger, total))
        assert len(full) == -(-total // interval)
        gaps = [b - a for a, b in zip(full, [*full[1:], total], strict=True)]
        assert gaps[-1] >= min(gaps)


def test_a_power_law_that_cannot_be_or_whose_length_is_unknown_computes():
    assert strip(PowerLaw(1), 20) == "#" * 20
    none = PowerLaw(2, 1.1, 5)
    assert "no power law puts 4 computed steps around step 5 of 8" in none.misfit(8)
    assert strip(none, 8) == "#" * 8
    assert none.misfit(None) is None
    state = TriggerState(PowerLaw())
    assert {state.decide(Step(i), {}) for i in range(5)} == {Decision.COMPUTE}


def test_a_table_is_read_off_and_fits_its_own_length_only():
    table = Table("#.#..#")
    assert strip(table, 6) == "#.#..#"
    assert table.misfit(6) is None
    assert table.misfit(None) is None
    assert "for 6 steps and this run has 7" in table.misfit(7)
    assert "num_inference_steps=7" in table.misfit(7)
    assert strip(table, 8)[6:] == "##"  # beyond its end it computes
    assert strip(Table("......"), 6) == "#....."  # without history a step is computed, whatever the table says


def test_ramp_of_slope_nothing_is_the_modulus_counted_down():
    flat = strip(Ramp(4, slope=0.0, low=0, high=0), 30)
    assert flat == strip(First(1) | Every(4, phase=0, backwards=True), 30)
    state = TriggerState(Ramp())
    assert {state.decide(Step(i), {}) for i in range(5)} == {Decision.COMPUTE}  # an unknown length computes


def test_or_and_not():
    a, b = Table("#.#.#."), Table("##..##")
    assert strip(a | b, 6) == "###.##"
    assert strip(a & b, 6) == "#...#."
    assert strip(~a, 6) == "##.#.#"
    assert strip(~(a | b), 6) == "#..#.."
    assert "for 6 steps" in (First(1) | a).misfit(5)
    assert "for 6 steps" in (~a).misfit(5)
    assert (a & b).misfit(6) is None


def test_check_is_weaker_than_compute_and_stronger_than_reuse():
    checks = Verify(threshold=1e9, decay=1.0, shortest=1, longest=9)
    assert strip(Table("#....#..") | checks, 8, error=0.0) == "#.???#.?"
    assert strip(Table("######..") & checks, 8, error=0.0) == "#.????.."
    assert (First(1) | checks).check is checks.check is not None
    assert not (First(1) | checks).redo


def test_every_part_of_a_combination_sees_every_step():
    """An accumulator under an ``or`` gathers also at steps that another part decides, and starts anew after any computation."""
    changes = [None, *([0.1] * 9)]
    alone = strip(Accumulate(CHANGE, 0.35), 10, signals={CHANGE: changes})
    assert full_steps(alone) == [0, 4, 8]
    joined = strip(Accumulate(CHANGE, 0.35) | Table("###......."), 10, signals={CHANGE: changes})
    assert full_steps(joined) == [0, 1, 2, 6]
    both = strip(Accumulate(CHANGE, 0.35) & Table("#.....####"), 10, signals={CHANGE: changes})
    assert full_steps(both) == [0, 6]  # due from the fourth step on, permitted at the sixth, then at nothing again
    assert (First(1) | Accumulate(CHANGE, 1.0)).signals == (CHANGE,) == (~Accumulate(CHANGE, 1.0)).signals


@pytest.mark.parametrize("threshold", [-math.inf, 0.0, 0.05, 0.3, 1.0, math.inf])
def test_a_larger_threshold_never_computes_more(threshold):
    draw = torch.Generator().manual_seed(0)
    changes = [None, *(torch.rand(30, generator=draw) * 0.2).tolist()]
    counts = [strip(Accumulate(CHANGE, t), 31, signals={CHANGE: changes}).count("#") for t in (threshold, threshold + 0.1)]
    assert counts[0] >= counts[1]


def test_the_gathered_sum_does_not_survive_a_change_of_the_batch():
    trigger = Accumulate(CHANGE, 0.25)
    _, state = trigger.decide(None, Moment(Step(1), Step(0), 0, {CHANGE: torch.tensor([0.2, 0.2])}))
    decision, state = trigger.decide(state, Moment(Step(2), Step(0), 1, {CHANGE: torch.tensor([0.1])}))
    assert decision is Decision.REUSE
    assert state.tolist() == pytest.approx([0.1])


def test_verify_accepts_the_limit_itself_and_never_what_is_not_a_number():
    verify = Verify(threshold=0.1, decay=1.0, floor=0.0)
    moment = Moment(Step(5, 10), Step(3, 10), 1)
    assert verify.observe(None, moment, 0.1) == (True, False)
    assert verify.observe(None, moment, 0.11) == (False, True)
    assert verify.observe(None, moment, math.nan) == (False, True)


def test_no_history_computes_whatever_the_trigger_says():
    assert strip(Every(3, phase=2), 9)[0] == "#"
    assert strip(Last(1), 5)[0] == "#"
