"""Which cells are reused: tests 13 and 15 of OmniCache-MD's reference, and each solver against all plans of small cases."""

import itertools
import random

import pytest
import torch

from omnicache.calibrate.layers.budget import Budget
from omnicache.calibrate.layers.greedy import greedy
from omnicache.calibrate.layers.interacting import _Search, interacting
from omnicache.calibrate.layers.joint import Joint
from omnicache.calibrate.layers.knapsack import knapsack
from omnicache.errors import OmniCacheError


def drawn(seed, layers=4, steps=11):
    """Seconds and losses by layer and step."""
    draw = random.Random(seed)
    lat = [[draw.uniform(0.5, 2.0)] * steps for _ in range(layers)]
    return lat, [[draw.expovariate(1.0) for _ in range(steps)] for _ in range(layers)]


def joint(layers, steps, seed, rank=3):
    """Errors that do act together, and what all layers leave: a part of their sum."""
    draw = torch.Generator().manual_seed(seed)
    errors = torch.randn(layers, steps, rank, generator=draw, dtype=torch.float64) + 0.3
    ages = [torch.cat([torch.zeros(age, rank), errors.sum(0)[: steps - age]]) for age in range(steps - 1)]
    return errors, torch.stack([0.4 * torch.stack(ages[: age + 1]).sum(0) for age in range(steps - 1)], 1)


def error(errors, together, cells, layers, steps):
    """The squared error of a plan, from the definition: what each reuse leaves alone is the sum over the steps since its value was
    computed; what all layers leave together replaces the sum over all, and what ``k`` leave lies between, by pairs."""
    total = 0.0
    for n, t in cells:
        age = next(a for a in range(t + 1) if (n, t - a) not in cells)
        alone = torch.stack([errors[:, t - a] for a in range(age)]).sum(0)
        share = sum(u == t for _, u in cells) - 1
        less = (alone.sum(0) - together[t, age - 1]) / (layers * (layers - 1)) if layers > 1 and together is not None else 0.0
        total = total + alone[n] - share * less
    return float(torch.as_tensor(total).square().sum())


# --- 13: the paper's solver


@pytest.mark.parametrize("seed", range(20))
def test_13_what_is_saved_exceeds_the_target_by_less_than_the_largest_share(seed):
    lat, loss = drawn(seed)
    before: set = set()
    for speedup in (1.0, 1.2, 1.5, 2.0, 2.5, 3.0):
        budget = Budget.of(lat, speedup)
        chosen = greedy(loss, budget)
        saved, largest = budget.saved(chosen), max(map(max, budget.share))
        assert budget.target == pytest.approx(1 - 1 / speedup)
        assert budget.target - 1e-9 <= saved < budget.target + largest
        assert before <= set(chosen)  # a larger speedup takes the same and more
        assert all(t % 5 for _, t in chosen)
        before = set(chosen)


@pytest.mark.parametrize("interval", [2, 3, 5])
def test_13_a_target_that_cannot_be_reached_is_refused_with_the_most_that_can(interval):
    lat, loss = drawn(1, steps=12)
    with pytest.raises(OmniCacheError, match=r"speedup of 9 is infeasible: .* the largest possible") as said:
        Budget.of(lat, 9.0, interval)
    most = float(str(said.value).split(" it is ")[1].split(",")[0])
    assert most == pytest.approx(1 / (1 - sum(t % interval > 0 for t in range(12)) / 12), abs=0.011)
    budget = Budget.of(lat, most, interval)  # what it says works
    assert set(greedy(loss, budget)) <= set(budget.cells)


def test_13_of_equal_weights_the_larger_share_goes_first():
    budget = Budget.of([[1.0, 1.0], [3.0, 3.0]], 1.2)
    assert greedy([[0.0, 1.0], [0.0, 3.0]], budget) == ((1, 1),)


def test_the_rest_of_the_denoiser_lowers_every_share():
    lat, _ = drawn(3)
    alone, among = Budget.of(lat, 1.5), Budget.of(lat, 1.5, rest=sum(map(sum, lat)))
    assert among.share[0][0] == pytest.approx(alone.share[0][0] / 2)
    with pytest.raises(OmniCacheError, match=r"1\.57, the largest"):
        Budget.of(lat, 2.5, rest=sum(map(sum, lat)))


def test_what_saves_nothing_is_no_candidate():
    budget = Budget.of([[0.0] * 6, [1.0] * 6], 1.5)
    assert {n for n, _ in budget.cells} == {1}


# --- 15: the paper's own figures


@pytest.mark.parametrize(
    ("before", "after", "speedup"), [(138.36, 102.88, 1.345), (110, 82.4, 1.335), (92.6, 82.4, 1.124), (138.36, 79.00, 1.751)]
)
def test_15_speedups_and_shares_are_those_of_the_published_times(before, after, speedup):
    assert before / after == pytest.approx(speedup, abs=5e-4)
    # A plan that saves this share of the time of equal layers gives that speedup.
    budget = Budget.of([[1.0] * 5000], speedup)
    assert budget.target == pytest.approx(1 - after / before, abs=5e-4)
    assert 1 / (1 - budget.saved(greedy([[1.0] * 5000], budget))) == pytest.approx(speedup, abs=2e-3)


# --- against all plans


def all_plans(budget):
    cells = budget.cells
    for size in range(len(cells) + 1):
        for chosen in itertools.combinations(cells, size):
            if budget.saved(chosen) >= budget.target - 1e-9:
                yield chosen


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("speedup", [1.2, 1.6, 2.2])
def test_the_knapsack_finds_the_least_sum(seed, speedup):
    lat, loss = drawn(seed, layers=3, steps=5)
    budget = Budget.of(lat, speedup, interval=5, rest=0.0)

    def total(cells):
        return sum(loss[n][t] for n, t in cells)

    found = knapsack(loss, budget)
    assert budget.saved(found) >= budget.target - 1e-9
    assert total(found) == pytest.approx(min(map(total, all_plans(budget))))
    assert total(found) <= total(greedy(loss, budget)) + 1e-12


def test_the_knapsack_takes_everything_if_everything_is_needed():
    lat, loss = drawn(0, layers=3, steps=5)
    budget = Budget.of(lat, 5.0)
    assert set(knapsack(loss, budget)) == set(budget.cells)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("speedup", [1.2, 1.6, 2.2])
def test_interacting_comes_close_to_the_least_joint_error(seed, speedup):
    lat, loss = drawn(seed, layers=3, steps=4)
    budget, given = Budget.of(lat, speedup), joint(3, 4, seed)
    found = interacting(Joint.of(*given), budget)
    assert budget.saved(found) >= budget.target - 1e-9
    assert set(found) <= set(budget.cells)
    every = sorted(error(*given, cells, 3, 4) for cells in all_plans(budget))
    mine = error(*given, found, 3, 4)
    assert mine <= every[len(every) // 10]  # of all plans
    assert mine <= error(*given, greedy(loss, budget), 3, 4) + 1e-9


@pytest.mark.parametrize("seed", range(3))
def test_what_the_search_keeps_up_to_date_is_the_error_of_its_plan(seed):
    lat, _ = drawn(seed, layers=4, steps=9)
    budget, given = Budget.of(lat, 2.0), joint(4, 9, seed)
    made, draw = Joint.of(*given), random.Random(seed)
    search = _Search(made, budget)
    for _ in range(60):
        n, t = draw.choice(budget.cells)
        wanted = float(search.adding()[n, t]) + search.cost
        taking = not search.reused[n, t]
        search.turn(n, t)
        now = error(*given, set(search.cells), 4, 9)
        assert search.cost == pytest.approx(now, rel=1e-3, abs=1e-3)
        assert made.size(budget.rows(search.cells)) ** 2 == pytest.approx(now, rel=1e-3, abs=1e-3)
        assert not taking or wanted == pytest.approx(now, rel=1e-3, abs=1e-3)


def test_all_layers_together_leave_what_was_measured():
    errors, together = joint(4, 6, 0)
    rows = ("###..#",) * 4
    wanted = together[3, 0] + together[4, 1]
    assert Joint.of(errors, together).size(rows) == pytest.approx(float(wanted.norm()), rel=1e-3)
    assert Joint.of(errors).size(("###.##",) * 4) == pytest.approx(float(errors[:, 3].sum(0).norm()), rel=1e-3)
    assert Joint.of(errors, together).size(("###.##", *("######",) * 3)) == pytest.approx(float(errors[0, 3].norm()), rel=1e-3)


def test_interacting_takes_what_cancels():
    # Two layers whose errors are opposite, a third with a smaller error by itself.
    errors = torch.zeros(3, 3, 2, dtype=torch.float64)
    errors[:, 1] = torch.tensor([[1.0, 0.0], [-1.0, 0.1], [0.0, 0.5]])
    errors[:, 2] = 10.0
    budget = Budget.of([[1.0] * 3] * 3, 9 / 7)
    assert interacting(Joint.of(errors), budget) == ((0, 1), (1, 1))
    assert set(greedy([[0, 1.0, 14], [0, 1.005, 14], [0, 0.5, 14]], budget)) == {(2, 1), (0, 1)}


def test_interacting_knows_that_a_run_of_reuses_gets_older():
    # One layer, whose errors have nothing to do with one another: in a row of two the second one counts both.
    errors = torch.eye(9, dtype=torch.float64)[None]
    budget = Budget.of([[1.0] * 9], 9 / 5, interval=9)  # four of eight
    found = [t for _, t in interacting(Joint.of(errors), budget)]
    assert all(b - a > 1 for a, b in itertools.pairwise(found))
    assert error(errors, None, {(0, 1), (0, 2)}, 1, 9) == 5 > error(errors, None, {(0, 1), (0, 3)}, 1, 9) == 2


def test_interacting_takes_whole_steps_where_layers_do_not_add_up():
    # Three layers that leave nothing when all are reused, at steps of equal errors.
    errors = torch.eye(15, dtype=torch.float64).reshape(3, 5, 15)
    budget = Budget.of([[1.0] * 5] * 3, 1.25)  # three cells of fifteen
    chosen = interacting(Joint.of(errors, torch.zeros(5, 4, 15, dtype=torch.float64)), budget)
    assert len({t for _, t in chosen}) == 1
