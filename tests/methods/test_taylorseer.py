"""TaylorSeer (arXiv 2503.06923): the tests (1) to (7) that its reference asks for."""

import pytest
import torch

import omnicache
from omnicache.granularity import MLP, Attention, Stack
from omnicache.methods.taylorseer import taylorseer
from omnicache.policy import Policy
from omnicache.predictors import Hold, Residual, Taylor
from omnicache.runtime.step import Step
from omnicache.triggers import Every, First

from .tiny import Curves, Pipe, counted, dit, full_steps, strip


def forecast(how: Taylor, curve, full: list[int], at: int) -> float:
    history = ()
    for i in full:
        history = how.learn(history, Step(i), (), (torch.tensor([curve(i)], dtype=torch.float64),))
    return float(how.estimate(history, Step(at), ())[0])


@pytest.mark.parametrize("basis", ["taylor", "newton"])
@pytest.mark.parametrize("order", [1, 2, 4])
@pytest.mark.parametrize("full", [[0, 1], [0, 1, 2, 7], [0, 3, 4, 9, 10], [2, 11]])
def test_1_a_linear_ramp_is_exact_at_any_gaps_and_any_distance(basis, order, full):
    for ahead in (1, 2, 5, 13):
        at = full[-1] + ahead
        assert forecast(Taylor(order, basis), lambda i: 3.0 - 0.7 * i, full, at) == pytest.approx(3.0 - 0.7 * at, abs=1e-9)


def test_1_the_forecast_lies_on_the_far_side_of_the_newest_value():
    rising = forecast(Taylor(1), lambda i: float(i), [0, 5], 6)
    assert rising == 6.0  # a wrong sign of the gap would give 4


@pytest.mark.parametrize("gap", [1, 4])
@pytest.mark.parametrize("order", [2, 3, 4])
def test_2_a_quadratic_is_missed_by_minus_c_h_k_and_met_by_newton(gap, order):
    c, full = 1.5, [gap * i for i in range(6)]
    for ahead in (1, 2, 3):
        at = full[-1] + ahead
        error = forecast(Taylor(order), lambda i: c * i * i, full, at) - c * at * at
        exact = forecast(Taylor(order, "newton"), lambda i: c * i * i, full, at) - c * at * at
        assert error == pytest.approx(-c * gap * ahead, abs=1e-9)
        assert exact == pytest.approx(0.0, abs=1e-8)


def test_2_uneven_gaps_as_in_the_reference():
    assert forecast(Taylor(2), lambda i: float(i * i), [0, 1, 2, 8], 9) == pytest.approx(64 + 10 + 7 / 12, abs=1e-9)
    assert forecast(Taylor(2, "newton"), lambda i: float(i * i), [0, 1, 2, 8], 9) == pytest.approx(81, abs=1e-9)


@pytest.mark.parametrize("granularity", ["module", "stack"])
def test_3_order_0_is_reuse_at_intervals_to_the_bit(granularity):
    pipe = Pipe(dit())
    when = First(3) | Every(5)
    plain = Policy(when, Stack(), Residual(Hold())) if granularity == "stack" else Policy(when, Attention() | MLP(), Hold())
    with omnicache.cache(pipe, plain):
        held = pipe(num_inference_steps=12)
    with omnicache.cache(pipe, "taylorseer", order=0, granularity=granularity) as run:
        assert torch.equal(pipe(num_inference_steps=12), held)
    with omnicache.cache(pipe, "taylorseer", order=1, granularity=granularity):
        assert not torch.equal(pipe(num_inference_steps=12), held)
    assert full_steps(run.computed) == [0, 1, 2, 7]


@pytest.mark.parametrize("granularity", ["module", "stack"])
def test_4_interval_1_is_the_plain_model_to_the_bit(granularity):
    pipe = Pipe(dit())
    plain = pipe(guidance="calls")
    with omnicache.cache(pipe, "taylorseer", interval=1, order=2, granularity=granularity):
        assert torch.equal(pipe(guidance="calls"), plain)


@pytest.mark.parametrize(
    ("warmup", "interval", "full"),
    [(3, 4, 14), (3, 5, 12), (3, 6, 10), (3, 7, 9), (3, 8, 8), (3, 9, 8), (2, 3, 18), (2, 4, 14), (2, 5, 11), (1, 5, 10)],
)
def test_5_full_steps_of_the_interval_schedule(warmup, interval, full):
    marks = strip(taylorseer(interval=interval, warmup=warmup).policies[0].when, 50)
    assert full_steps(marks) == [*range(warmup), *range(warmup - 1 + interval, 50, interval)]
    assert marks.count("#") == full == warmup + (50 - warmup) // interval


def test_5_module_calls_are_those_of_the_schedule():
    model = dit()
    pipe = Pipe(model)
    for granularity in ("module", "stack"):
        with omnicache.cache(pipe, "taylorseer", interval=4, granularity=granularity), counted(model) as calls:
            pipe(num_inference_steps=20)
        full = 3 + (20 - 3) // 4
        for i in range(3):
            assert calls[f"transformer_blocks.{i}.attn1"] == calls[f"transformer_blocks.{i}.ff"] == full
        # behind a passed-over stack nothing of a block runs, behind pre-gate reuse its norms do
        assert calls["transformer_blocks.1.norm1"] == (20 if granularity == "module" else full)


@pytest.mark.parametrize("order", [0, 1, 2, 4])
@pytest.mark.parametrize("warmup", [1, 2, 3])
def test_6_the_ladder_gains_one_rung_a_full_step_from_the_last_warm_up_step_on(order, warmup):
    how = taylorseer(order=order, warmup=warmup, granularity="module").policies[0].how
    history, lengths = (), []
    for i in [*range(warmup), *range(warmup + 4, 40, 5)]:
        history = how.learn(history, Step(i), (), (torch.zeros(1),))
        if i >= warmup - 1:
            lengths.append(len(history))
    assert lengths == [min(order, j - 1) + 1 for j in range(1, len(lengths) + 1)]


def test_7_stack_and_modules_agree_on_ramps_under_constant_gates_and_are_exact():
    pipe = Pipe(Curves(lambda t: 2.0 - 0.003 * t, gate=lambda t: 0.6))
    plain, outs = pipe(num_inference_steps=20, dtype=torch.float64), {}
    for granularity in ("module", "stack"):
        with omnicache.cache(pipe, "taylorseer", warmup=3, interval=5, granularity=granularity) as run:
            outs[granularity] = pipe(num_inference_steps=20, dtype=torch.float64)
        assert run.computed.count("#") == 6
    torch.testing.assert_close(outs["module"], outs["stack"], rtol=0, atol=1e-9)
    # The first interval after the warm-up has one value to go by, so it repeats; with one more it is exact all the way.
    assert not torch.allclose(outs["stack"], plain, rtol=0, atol=1e-6)
    every_value = Policy(First(3) | Every(5), Stack(), Residual(Taylor(1)))
    with omnicache.cache(pipe, every_value):
        torch.testing.assert_close(pipe(num_inference_steps=20, dtype=torch.float64), plain, rtol=0, atol=1e-9)


def test_7_under_moving_gates_they_do_not_agree():
    pipe = Pipe(Curves(lambda t: 2.0 - 0.003 * t, gate=lambda t: 0.5 + 0.001 * t))
    outs = []
    for granularity in ("module", "stack"):
        with omnicache.cache(pipe, "taylorseer", granularity=granularity):
            outs.append(pipe(num_inference_steps=20, dtype=torch.float64))
    assert not torch.allclose(*outs, rtol=0, atol=1e-6)
