"""Which cells are reused: tests 13 and 15 of OmniCache-MD's reference, and each solver against all plans of small cases."""

import itertools
import random

import pytest
import torch

from omnicache.calibrate.layers.budget import Budget
from omnicache.calibrate.layers.greedy import greedy
from omnicache.calibrate.layers.interacting import interacting
from omnicache.calibrate.layers.knapsack import knapsack
from omnicache.errors import OmniCacheError


def drawn(seed, layers=4, steps=11):
    """Seconds and losses by layer and step."""
    draw = random.Random(seed)
    lat = [[draw.uniform(0.5, 2.0)] * steps for _ in range(layers)]
    return lat, [[draw.expovariate(1.0) for _ in range(steps)] for _ in range(layers)]


def joint(layers, steps, seed, rank=3):
    """Inner products of errors that do act together."""
    vectors = torch.randn(layers * steps, rank, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.3
    return vectors @ vectors.T


def counts(cells, layers, steps):
    """How many times each one-step change counts in the joint error, from the definition: a value that is ``a`` steps old is off
    by the changes of the last ``a`` steps."""
    found = torch.zeros(layers, steps, dtype=torch.float64)
    for n, t in cells:
        old = t
        while (n, old) in cells:
            found[n, old] += 1
            old -= 1
    return found.flatten()


def error(gram, cells, layers, steps):
    n = counts(set(cells), layers, steps)
    return float(n @ gram @ n)


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
    lat, loss = drawn(seed, layers=3, steps=5)
    budget, gram = Budget.of(lat, speedup), joint(3, 5, seed)
    found = interacting(gram, budget)
    assert budget.saved(found) >= budget.target - 1e-9
    assert set(found) <= set(budget.cells)
    every = sorted(error(gram, cells, 3, 5) for cells in all_plans(budget))
    mine = error(gram, found, 3, 5)
    assert mine <= every[len(every) // 50]  # among the best fiftieth of all plans
    assert mine <= error(gram, greedy(loss, budget), 3, 5) + 1e-9


def test_interacting_takes_what_cancels():
    # Two layers whose errors are opposite, a third with a smaller error by itself.
    vector = torch.zeros(9, 2, dtype=torch.float64)
    vector[0 * 3 + 1], vector[1 * 3 + 1], vector[2 * 3 + 1] = torch.tensor([[1.0, 0.0], [-1.0, 0.1], [0.0, 0.5]])
    vector[[2, 5, 8]] = 10.0
    budget = Budget.of([[1.0] * 3] * 3, 9 / 7)
    assert interacting(vector @ vector.T, budget) == ((0, 1), (1, 1))
    assert set(greedy([[0, 1.0, 14], [0, 1.005, 14], [0, 0.5, 14]], budget)) == {(2, 1), (0, 1)}


def test_interacting_knows_that_a_run_of_reuses_gets_older():
    # All one-step errors are the same, and one layer is alone: in a row of two the second one counts both.
    gram = torch.eye(9, dtype=torch.float64)
    budget = Budget.of([[1.0] * 9], 9 / 5, interval=9)  # four of eight
    found = [t for _, t in interacting(gram, budget)]
    assert all(b - a > 1 for a, b in itertools.pairwise(found))
    assert error(gram, [(0, 1), (0, 2)], 1, 9) == 5 > error(gram, [(0, 1), (0, 3)], 1, 9) == 2
