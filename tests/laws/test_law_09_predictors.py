"""Law 9: a predictor that declares ``exact_degree`` m is exact on polynomials of degree m at uneven spacing."""

from __future__ import annotations

import inspect
import itertools
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.laws.table import ROWS

from omnicache.policy import VALUES, Entry, History, Predictor, Tensors
from omnicache.predictors import (
    AdamsBashforth,
    Affine,
    Aligned,
    Bands,
    Constant,
    Extrapolate,
    Foca,
    Hermite,
    Hold,
    Pooled,
    Residual,
    Same,
    ScaleShift,
    Taylor,
    Zero,
)
from omnicache.runtime.step import Step
from omnicache.weights import Weights


@dataclass(frozen=True)
class Bare(Predictor):
    """Holds the last value without being linear in its history, as a method's own predictor may."""

    exact_degree = 0

    def learn(self, history: History, step: Step, x: Tensors, y: Tensors) -> History:
        return (Entry(step, y),)

    def estimate(self, history: History, step: Step, x: Tensors) -> Tensors:
        return history[0].tensors


def elsewhere(predictor: Predictor) -> bool:
    """Whether it claims no degree, since it changes values on purpose or takes more than they tell: tested with its method."""
    inner = predictor.inner if isinstance(predictor, (Residual, Pooled)) else predictor
    return isinstance(inner, (AdamsBashforth, Affine, Aligned, Bands, ScaleShift, Zero)) and predictor.exact_degree is None


PREDICTORS: list[Predictor] = [
    Hold(),
    Hold(keep=3),
    *(Taylor(order, basis, axis) for order in range(5) for basis in ("taylor", "newton") for axis in ("step", "sigma")),
    Residual(Bare()),
    *(Hermite(order, basis, sigma=sigma) for order in range(4) for basis in ("hermite", "damped") for sigma in (0.5, 2**-0.5, 1.0)),
    *(Foca(slope) for slope in ("three-point", "two-point")),
    *(Residual(Taylor(order, basis)) for order in range(3) for basis in ("taylor", "newton")),
    *dict.fromkeys(p.how for row in ROWS.values() for p in row.plan(12).policies),
    *(AdamsBashforth(3), AdamsBashforth(spacing="log-snr"), ScaleShift((Weights(torch.ones(2, 12, 2)),))),
    *(Constant(), Bands(1.0, 1.0), Residual(Bands(1.0, 1.0)), Extrapolate(0.3), Pooled(Taylor(1)), Same(), Zero()),
]
EXACT = [p for p in dict.fromkeys(PREDICTORS) if p.remembers and not elsewhere(p)]
positions = st.lists(st.integers(0, 40), min_size=7, max_size=7, unique=True).map(sorted)
numbers = st.floats(-2, 2).map(lambda x: round(x, 3))


def test_every_predictor_is_tried() -> None:
    known = {cls for cls in VALUES.values() if issubclass(cls, Predictor) and not inspect.isabstract(cls)}
    assert known <= {type(p) for p in PREDICTORS}


def value(coefficients: list[float], s: Step, axis: str) -> torch.Tensor:
    at = s.position(axis)
    return torch.tensor([sum(c * at**i for i, c in enumerate(coefficients)), 1.0], dtype=torch.float64)


def guess(predictor: Predictor, coefficients: list[float], steps: list[Step]) -> tuple[torch.Tensor, torch.Tensor]:
    """The estimate at the last step from computed values at the others, and the truth."""
    inner: Any = predictor.inner if isinstance(predictor, Residual) else predictor
    history: History = ()
    axis = getattr(inner, "axis", "step")
    for s in steps[:-1]:
        x = torch.full((2,), float(s.index) ** 2, dtype=torch.float64)  # what the site is given: it may do what it likes
        y = value(coefficients, s, axis)
        history = predictor.learn(history, s, (x,), (x + y,) if predictor.needs_input else (y,))
    x = torch.full((2,), 7.0, dtype=torch.float64)
    truth = value(coefficients, steps[-1], axis)
    (estimate,) = predictor.estimate(history, steps[-1], (x,))
    return estimate, x + truth if predictor.needs_input else truth


@pytest.mark.parametrize("predictor", EXACT, ids=str)
@given(at=positions, coefficients=st.lists(numbers, min_size=8, max_size=8))
def test_exact_where_it_says_so(predictor: Predictor, at: list[int], coefficients: list[float]) -> None:
    """Steps are uneven, and noise levels fall by a curve of their own."""
    assert predictor.exact_degree is not None, "state its error formula in a test, and leave it out here"
    steps = [Step(i, 41, sigma=2.0 ** (3 - i / 10)) for i in at]
    estimate, truth = guess(predictor, coefficients[: predictor.exact_degree + 1], steps)
    # Extrapolating amplifies the rounding of large powers; a wrong weight is off by far more.
    scale = max(1.0, *(abs(c) * 40.0**i for i, c in enumerate(coefficients[: predictor.exact_degree + 1])))
    gap = max(s - r for r, s in itertools.pairwise(at)) ** predictor.exact_degree
    assert torch.allclose(estimate, truth, rtol=1e-9, atol=1e-9 * scale * gap)


@pytest.mark.parametrize("predictor", [p for p in EXACT if not isinstance(p, Residual)], ids=str)
def test_and_no_further(predictor: Any) -> None:
    """The declared degree is the highest: else the law above would be easy to pass."""
    degree = predictor.exact_degree + 1
    steps = [Step(i, 41, sigma=2.0 ** (3 - i / 10)) for i in (0, 1, 3, 4, 8, 9, 13)]
    estimate, truth = guess(predictor, [0.0] * degree + [1.0], steps)
    assert not torch.allclose(estimate, truth, rtol=1e-3)


@given(h=st.integers(1, 5), ahead=st.integers(1, 9))
def test_the_ladder_errs_on_a_square_by_the_gap_times_the_distance(h: int, ahead: int) -> None:
    """Backward differences lag behind: on s^2 at even spacing h, the released ladder of order 2 falls short by h times k."""
    steps = [Step(i) for i in (0, h, 2 * h, 2 * h + ahead)]
    estimate, truth = guess(Taylor(order=2, basis="taylor"), [0.0, 0.0, 1.0], steps)
    assert float(truth[0] - estimate[0]) == pytest.approx(h * ahead)


@given(at=positions, coefficients=st.lists(numbers, min_size=2, max_size=2))
def test_values_before_since_are_not_used(at: list[int], coefficients: list[float]) -> None:
    """Early values may be anything: with two left to go by, the forecast is a straight line."""
    since = at[-3]
    steps = [Step(i, 41) for i in at]
    history: History = ()
    predictor = Taylor(order=2, basis="newton", since=since)
    for s in steps[:-1]:
        y = value(coefficients, s, "step") if s.index >= since else torch.full((2,), 1e6, dtype=torch.float64)
        history = predictor.learn(history, s, (), (y,))
    assert torch.allclose(predictor.estimate(history, steps[-1], ())[0], value(coefficients, steps[-1], "step"), atol=1e-6)
