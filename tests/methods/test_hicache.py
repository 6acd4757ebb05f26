"""HiCache and FoCa: the tests of their references."""

import math

import pytest
import torch

import omnicache
from omnicache.granularity import Stack
from omnicache.policy import Policy
from omnicache.predictors import Foca, Hermite, Residual, Taylor
from omnicache.predictors.foca import corrected, predicted
from omnicache.predictors.hermite import hermite
from omnicache.runtime.step import Step
from omnicache.triggers import Every, First

from .tiny import Pipe, dit

HALF = 1 / math.sqrt(2)


def forecast(how, curve, full: list[int], at: int) -> float:
    history = ()
    for i in full:
        history = how.learn(history, Step(i), (), (torch.tensor([float(curve(i))], dtype=torch.float64),))
    return float(how.estimate(history, Step(at), ())[0])


def ramp(i: float) -> float:
    return 3.0 - 0.7 * i


# --- HiCache


@pytest.mark.parametrize("x", [-1.5, 0.0, 0.3, 2.0])
def test_1_the_polynomials_are_the_physicists(x):
    assert hermite(2, x) == pytest.approx(4 * x**2 - 2)
    assert hermite(3, x) == pytest.approx(8 * x**3 - 12 * x)
    assert hermite(4, x) == pytest.approx(16 * x**4 - 48 * x**2 + 12)


@pytest.mark.parametrize("full", [[0, 1], [0, 3, 4, 9], [2, 11]])
@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_2_order_one_of_the_even_scale_is_taylor(full, ahead):
    how, at = Hermite(1, sigma=HALF), full[-1] + ahead
    assert forecast(how, ramp, full, at) == pytest.approx(ramp(at), abs=1e-9)
    assert forecast(how, lambda i: i * i, full, at) == pytest.approx(forecast(Taylor(1), lambda i: i * i, full, at), abs=1e-9)
    assert how.exact_degree == 1


def test_2_and_whole_runs_of_it_are_taylorseers():
    pipe = Pipe(dit())
    with omnicache.cache(pipe, "hicache", interval=3, order=1, sigma=HALF):
        ours = pipe()
    with omnicache.cache(pipe, "taylorseer", interval=3, order=1):
        torch.testing.assert_close(ours, pipe())


@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_3_the_usual_scale_goes_half_as_far(ahead):
    found = forecast(Hermite(1, sigma=0.5), ramp, [0, 4], 4 + ahead)
    assert found - ramp(4) == pytest.approx(-0.7 * ahead / 2)


@pytest.mark.parametrize("basis", ["hermite", "damped"])
@pytest.mark.parametrize("order", [0, 1, 2, 4])
@pytest.mark.parametrize("sigma", [0.3, 0.5, 1.0])
def test_4_what_stays_is_exact(basis, order, sigma):
    assert forecast(Hermite(order, basis, sigma=sigma), lambda i: 5.0, [0, 1, 2, 6, 9], 11) == pytest.approx(5.0)


def test_5_order_0_is_reuse_to_the_bit():
    pipe = Pipe(dit())
    with omnicache.cache(pipe, "hicache", interval=3, order=0):
        ours = pipe()
    with omnicache.cache(pipe, "taylorseer", interval=3, order=0):
        assert torch.equal(ours, pipe())


def test_the_weights_of_order_two_are_those_of_the_reference():
    """``D_0 + 2 sigma^2 k D_1 + (2 sigma^4 k^2 - sigma^2) D_2`` on a parabola at even gaps of 2: D_1 = 18, D_2 = 2."""
    s, k = 0.5, 3
    found = forecast(Hermite(2, sigma=s), lambda i: i * i, [6, 8, 10], 10 + k)
    assert found == pytest.approx(100 + 2 * s**2 * k * 18 + (2 * s**4 * k**2 - s**2) * 2)
    damped = forecast(Hermite(2, "damped", sigma=s), lambda i: i * i, [6, 8, 10], 10 + k)
    assert damped == pytest.approx(100 + s**2 * k * 18 + s**4 * k**2 / 2 * 2)
    plain = forecast(Hermite(2, "damped", sigma=1.0), lambda i: i * i, [6, 8, 10], 10 + k)
    assert plain == pytest.approx(forecast(Taylor(2), lambda i: i * i, [6, 8, 10], 10 + k))


# --- FoCa


@pytest.mark.parametrize("slope", ["three-point", "two-point"])
@pytest.mark.parametrize("full", [[0, 1], [0, 1, 2], [0, 1, 2, 6], [0, 3, 4, 9], [2, 11]])
@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_foca_1_a_ramp_is_exact_at_any_gaps_and_any_distance(slope, full, ahead):
    at = full[-1] + ahead
    assert forecast(Foca(slope), ramp, full, at) == pytest.approx(ramp(at), abs=1e-9)


def test_foca_a_parabola_is_missed_as_in_the_reference():
    assert predicted((10.0, 9.0), 11.0, [(100.0,), (81.0,)], (20.0,)) == pytest.approx((359 / 3,))
    assert forecast(Foca(), lambda i: i * i, [8, 9, 10], 11) == pytest.approx(120.0)  # of 121


def test_foca_a_parabola_at_uneven_gaps():
    """At 6 after 2 and 0 the slope is 12; P = (1.75^2 36 - 0.75^2 4 + 1.75 * 3 * 12) / 2.5 = 68.4, whose slope at 9 is 12, too."""
    assert forecast(Foca(), lambda i: i * i, [0, 2, 6], 9) == pytest.approx(72.0)  # of 81
    assert forecast(Foca("two-point"), lambda i: i * i, [0, 2, 6], 9) == pytest.approx(60.0)


@pytest.mark.parametrize("at", [(10.0, 9.0, 11.0), (6.0, 2.0, 9.0)])
def test_foca_2_with_the_true_slope_both_parts_are_exact_on_parabolas(at):
    newest, older, now = at
    values, here, there = [(newest**2,), (older**2,)], (2 * newest,), (2 * now,)
    assert predicted((newest, older), now, values, there) == pytest.approx((now**2,))
    assert corrected(now - newest, values[0], here, there) == pytest.approx((now**2,))


@pytest.mark.parametrize("ahead", [1, 3])
def test_foca_3_two_point_slopes_are_a_straight_line(ahead):
    curve = [1.0, 4.0, 2.0, 7.0]
    ours = forecast(Foca("two-point"), lambda i: curve[i], [0, 1, 2, 3], 3 + ahead)
    assert ours == pytest.approx(forecast(Taylor(1), lambda i: curve[i], [0, 1, 2, 3], 3 + ahead))


def test_foca_4_one_value_is_reused():
    assert forecast(Foca(), ramp, [4], 6) == ramp(4)


def test_foca_with_two_point_slopes_is_taylors_first_order_in_a_run():
    pipe, line = Pipe(dit()), Policy(First(3) | Every(3), Stack(), Residual(Taylor(1)))
    with omnicache.cache(pipe, "foca", interval=3, slope="two-point"):
        ours = pipe()
    with omnicache.cache(pipe, line):
        theirs = pipe()
    torch.testing.assert_close(ours, theirs)
