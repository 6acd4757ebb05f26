"""How to fill in."""

import pytest
import torch

from omnicache.predictors import Hold, Residual, Taylor
from omnicache.runtime.step import Step

STEPS = [0, 1, 2, 7, 12]
SIGMAS = [14.6, 9.1, 5.0, 1.9, 0.6]


def learned(how, curve, steps=STEPS):
    history = ()
    for i in steps:
        history = how.learn(history, i if isinstance(i, Step) else Step(i), (), (torch.tensor([curve(i)], dtype=torch.float64),))
    return history


def at(how, history, step) -> float:
    return float(how.estimate(history, step, ())[0])


def test_hold_repeats_the_newest_value_and_hands_out_the_very_tensor():
    history = learned(Hold(), lambda i: float(i * i))
    assert len(history) == 1
    assert at(Hold(), history, Step(13)) == 144.0
    assert Hold().estimate(history, Step(13), ())[0] is history[0].tensors[0]


def test_hold_remembers_older_values_without_weight():
    history = learned(Hold(3), float)
    assert [e.step.index for e in history] == [12, 7, 2]
    assert at(Hold(3), history, Step(13)) == 12.0
    assert at(Hold(3), history[1:], Step(13)) == 7.0  # a rehearsal that ignores the newest


def test_residual_adds_the_kept_increment_to_the_fresh_input():
    how = Residual(Hold())
    x0, y0, x1 = (torch.full((2, 3), v) for v in (10.0, 40.0, 11.0))
    history = how.learn((), Step(0), (x0,), (y0,))
    assert torch.equal(how.estimate(history, Step(1), (x1,))[0], torch.full((2, 3), 41.0))
    assert how.needs_input
    assert not Hold().needs_input


def test_residual_takes_each_stream_with_its_own_input():
    how = Residual(Hold())
    a, b = torch.ones(1, 2, 2), torch.ones(1, 5, 2)
    history = how.learn((), Step(0), (a, b), (a * 3, b * 7))
    out = how.estimate(history, Step(1), (a * 10, b * 20))
    assert torch.equal(out[0], a * 12)
    assert torch.equal(out[1], b * 26)


@pytest.mark.parametrize("order", [0, 1, 2, 3])
@pytest.mark.parametrize("axis", ["step", "sigma"])
def test_newton_meets_polynomials_of_its_order_at_uneven_steps_and_sigmas(order, axis):
    how = Taylor(order, "newton", axis=axis)
    steps = [Step(i, 20, sigma=s) for i, s in zip(STEPS, SIGMAS, strict=True)]

    def curve(step):
        return sum((c + 1) * step.position(axis) ** c for c in range(order + 1))

    ahead = Step(15, 20, sigma=0.2)
    assert at(how, learned(how, curve, steps), ahead) == pytest.approx(curve(ahead), rel=1e-9)
    assert how.exact_degree == order


def test_without_sigmas_the_steps_are_the_axis():
    how = Taylor(1, axis="sigma")
    assert at(how, learned(how, lambda i: 2.0 * i), Step(15)) == pytest.approx(30.0)


def test_the_ladder_divides_by_the_newest_gap_only():
    """Full at 0, 1, 2, 8 with squares: differences 64, 10 and 7/6, as the released code has them."""
    history = learned(Taylor(2), lambda i: float(i * i), [0, 1, 2, 8])
    assert at(Taylor(2), history, Step(9)) == pytest.approx(64 + 10 + 7 / 12)
    assert Taylor(4).exact_degree == 1


def test_values_before_since_are_not_used():
    how = Taylor(2, since=2)
    assert [e.step.index for e in learned(how, float)] == [12, 7, 2]
    assert len(learned(how, float, [0, 1])) == 1
    assert len(learned(how, float, [0, 1, 2])) == 1


def test_a_short_history_lowers_the_order():
    how = Taylor(3)
    assert at(how, learned(how, lambda i: 5.0 + i, [4]), Step(6)) == 9.0
    assert at(how, learned(how, lambda i: 5.0 + i, [2, 4]), Step(6)) == 11.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_estimate_has_the_dtype_of_what_was_learned_and_is_summed_wider(dtype):
    how = Taylor(1)
    history = ()
    for i, v in ((0, 1.0), (1, 1.0 + 2**-7)):
        history = how.learn(history, Step(i), (), (torch.full((4,), v, dtype=dtype),))
    out = how.estimate(history, Step(3), ())[0]
    assert out.dtype == dtype
    assert float(out[0]) == float(torch.tensor(1.0 + 3 * 2**-7, dtype=dtype))


def test_estimates_are_not_learned():
    """Learning returns a new history; estimating leaves it alone."""
    how = Taylor(1)
    history = learned(how, float, [0, 1])
    before = [e.tensors[0].clone() for e in history]
    for i in range(2, 6):
        how.estimate(history, Step(i), ())
    assert len(history) == 2
    assert all(torch.equal(e.tensors[0], b) for e, b in zip(history, before, strict=True))


@pytest.mark.parametrize("basis", ["taylor", "newton"])
def test_of_two_values_at_one_sigma_only_the_newer_is_used(basis):
    """Heun evaluates twice at one sigma: two points at one place have no slope."""
    how, sigmas = Taylor(1, basis, axis="sigma"), [9.0, 5.0, 5.0, 2.0]
    history = learned(how, lambda s: 3 * s.sigma + s.index, [Step(i, sigma=s) for i, s in enumerate(sigmas[:3])])
    assert [e.step.index for e in history] == [2, 0]
    slope = ((15 + 2) - 27) / (5 - 9)
    assert at(how, history, Step(3, sigma=2.0)) == pytest.approx(17 + slope * (2 - 5))
    alone = learned(how, lambda s: 7.0, [Step(0, sigma=5.0), Step(1, sigma=5.0)])
    assert at(how, alone, Step(2, sigma=2.0)) == 7.0
