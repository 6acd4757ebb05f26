"""The growth of errors, of systems that multiply them by known numbers."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from omnicache.calibrate.steps.fit import Fitted
from omnicache.calibrate.steps.growth import PLACES, growth


def system(factors: list[float], seen: list[str]):
    """Of errors that a step multiplies by its factor, and that a reused one adds to: what fitting a schedule to it would give."""

    def fitted(marks: str) -> Fitted:
        seen.append(marks)
        errors = [0.0]
        for factor, mark in zip(factors, marks, strict=True):
            errors.append(errors[-1] * factor + (mark == "."))
        return Fitted(marks, (), torch.tensor(errors, dtype=torch.float64)[:, None].square())

    return fitted


@pytest.mark.parametrize("factor", [0.8, 1.0, 1.3])
@pytest.mark.parametrize("steps", [5, 20, 50])
def test_a_constant_factor_is_found_at_every_step(factor, steps):
    seen: list[str] = []
    found = growth(steps, system([factor] * steps, seen))
    gap = max(1, steps // 10)
    assert len(found) == steps + 1 and found[-1] == 1.0
    first = 1 + gap  # nothing is measured before the first place, where the nearest counts
    assert found == pytest.approx([factor ** (steps - max(k, first)) for k in range(steps + 1)])
    assert len(seen) == len(set(seen)) <= PLACES and all(marks.count(".") == gap and marks[0] == "#" for marks in seen)


def test_where_it_was_measured_it_is_the_product_of_all_later_factors_and_between_those_a_mean_of_logarithms():
    steps, seen = 40, list[str]()
    factors = [1 + 0.5 * math.sin(k) for k in range(steps)]
    found = growth(steps, system(factors, seen))
    places = sorted(marks.rindex(".") + 1 for marks in seen)
    for place in places:
        assert found[place] == pytest.approx(math.prod(factors[place:]))
    low, high = next((a, b) for a, b in itertools.pairwise(places) if b - a > 2)
    share = 1 / (high - low)
    assert found[low + 1] == pytest.approx(found[low] ** (1 - share) * found[high] ** share)
    gaps = [b - a for a, b in itertools.pairwise(places)]
    assert gaps == sorted(gaps), "closer together at the start, where it changes fastest"


def test_what_leaves_no_error_is_no_measure():
    assert growth(10, lambda marks: Fitted(marks, (), torch.zeros(11, 2))) == [1.0] * 11
