"""Which steps to reuse: test 3 of OmniCache-Trajectory's reference."""

import itertools
import random

import pytest

from omnicache.calibrate.schedule import alternate, cheapest, greedy, interval, most_reuses
from omnicache.errors import OmniCacheError


def allowed(marks: str, warmup: int = 2, tail: int = 1, longest: int = 2) -> bool:
    return "." not in marks[:warmup] and "." not in marks[len(marks) - tail :] and "." * (longest + 1) not in marks


def price(marks: str, cost: list[float]) -> float:
    return sum(c for c, mark in zip(cost, marks, strict=True) if mark == ".")


def best_by_force(cost: list[float], reuses: int) -> float:
    total = len(cost)
    found = []
    for chosen in itertools.combinations(range(2, total - 1), reuses):
        marks = "".join("." if i in chosen else "#" for i in range(total))
        if allowed(marks):
            found.append(price(marks, cost))
    return min(found)


def costs(total: int, seed: int) -> list[float]:
    draw = random.Random(seed)
    return [draw.random() for _ in range(total)]


@pytest.mark.parametrize(("total", "most"), [(16, 9), (30, 18), (50, 32), (250, 165)])
def test_the_most_that_fits(total, most):
    assert most_reuses(total) == most
    assert cheapest(costs(total, 0), most).count(".") == most
    with pytest.raises(OmniCacheError, match=f"{most + 1} of {total} steps cannot be reused.*{most} can"):
        cheapest(costs(total, 0), most + 1)


def test_the_papers_fast_setting_of_30_steps_leaves_55_schedules():
    ways = {(0, 0): 1}  # (reuses, run) -> number of schedules of the 27 steps between head and tail
    for _ in range(27):
        after: dict[tuple[int, int], int] = {}
        for (count, run), n in ways.items():
            after[count, 0] = after.get((count, 0), 0) + n
            if run < 2:
                after[count + 1, run + 1] = after.get((count + 1, run + 1), 0) + n
        ways = after
    assert sum(n for (count, _), n in ways.items() if count == 18) == 55


@pytest.mark.parametrize("total", [5, 16, 30, 50])
@pytest.mark.parametrize("seed", range(5))
def test_exactly_as_many_as_asked_no_three_in_a_row_and_the_ends_computed(total, seed):
    for reuses in range(most_reuses(total) + 1):
        marks = cheapest(costs(total, seed), reuses)
        assert len(marks) == total
        assert marks.count(".") == reuses
        assert allowed(marks)


@pytest.mark.parametrize("total", range(4, 17))
@pytest.mark.parametrize("seed", range(2))
def test_brute_force_finds_nothing_cheaper(total, seed):
    cost = costs(total, seed)
    for reuses in range(most_reuses(total) + 1):
        assert price(cheapest(cost, reuses), cost) == pytest.approx(best_by_force(cost, reuses))


@pytest.mark.parametrize("seed", range(30))
def test_never_dearer_than_the_greedy_rule(seed):
    cost = costs(30, seed)
    for reuses in range(0, most_reuses(30) + 1, 3):
        marks = greedy(cost, reuses)
        assert allowed(marks)
        assert marks.count(".") <= reuses
        if marks.count(".") == reuses:
            assert price(cheapest(cost, reuses), cost) <= price(marks, cost) + 1e-12


def test_greedy_can_be_dearer_and_can_fall_short():
    cost = [9, 9, 1.0, 1.1, 1.2, 1.0, 9, 9]  # greedy takes 2, 5, 3 and must then skip 4
    assert greedy(cost, 4) == "##..#..#"
    assert price("##..#..#", cost) == 12.1
    assert price(cheapest(cost, 3), cost) == pytest.approx(3.1)
    blocked = [9, 9, 5.0, 1.0, 1.0, 5.0, 5.0, 9]  # 3 and 4 first: then only one of 2, 5 and 6 fits beside them
    assert most_reuses(8) == 4
    assert greedy(blocked, 4).count(".") == 3
    assert cheapest(blocked, 4).count(".") == 4


def test_equal_costs_prefer_the_earliest_steps():
    assert cheapest([0.1] * 10, 1) == "##.#######"
    assert cheapest([0.1] * 10, 3) == "##..#.####"
    assert cheapest([0.1] * 10, 4) == "##..#..###"
    assert cheapest([0.1] * 10, 5) == "##..#..#.#"


@pytest.mark.parametrize(("warmup", "tail", "longest"), [(1, 1, 2), (3, 2, 2), (2, 1, 1), (2, 1, 4)])
def test_other_rules(warmup, tail, longest):
    most = most_reuses(20, warmup, tail, longest)
    marks = cheapest(costs(20, 1), most, warmup, tail, longest)
    assert marks.count(".") == most
    assert allowed(marks, warmup, tail, longest)
    with pytest.raises(OmniCacheError):
        cheapest(costs(20, 1), most + 1, warmup, tail, longest)


def test_costs_by_age_are_counted_at_the_age_that_the_schedule_gives():
    young, old = [1.0] * 8, [1.0, 1, 1, 9, 9, 9, 9, 1]
    marks = cheapest(young, 3, ages=[young, old])  # the second of two reuses in a row costs nine
    assert ".." not in marks
    assert marks.count(".") == 3
    assert ".." in cheapest(young, 3, ages=[young, [0.0] * 8])


@pytest.mark.parametrize("total", [16, 30, 50])
def test_even_schedules_obey_the_same_rule(total):
    for reuses in range(most_reuses(total) + 1):
        marks = alternate(total, reuses)
        assert len(marks) == total
        assert marks.count(".") == reuses
        assert allowed(marks)
    n = total - 3
    assert alternate(total, n // 2)[2:].startswith("#.#." if n % 2 == 0 else "#")


def test_intervals_reuse_at_least_as_many():
    assert interval(10, 0) == "#" * 10
    assert interval(10, 4) == "#.#.#.#.##"
    assert interval(10, 5) == "#..#..#..#"
