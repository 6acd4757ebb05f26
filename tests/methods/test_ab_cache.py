"""AB-Cache (arXiv 2504.10540): the tests of its reference."""

import math

import pytest
import torch

import omnicache
from omnicache.predictors import AdamsBashforth, Taylor
from omnicache.predictors.adams_bashforth import decay
from omnicache.runtime.step import Step

from .tiny import Pipe, dit, full_steps, sd3


def forecast(how: AdamsBashforth, curve, full: list[int], at: int) -> float:
    history = ()
    for i in full:
        history = how.learn(history, Step(i), (), (torch.tensor([curve(i)], dtype=torch.float64),))
    return float(how.estimate(history, Step(at), ())[0])


@pytest.mark.parametrize("terms", [1, 2, 3, 5])
@pytest.mark.parametrize("spacing", ["nodes", "unit"])
def test_degree_k_minus_1_is_exact_one_step_ahead_and_the_next_is_missed_by_k_factorial(terms, spacing):
    how, full = AdamsBashforth(terms, spacing), list(range(3, 3 + terms))
    at = 3 + terms
    for degree in range(terms):
        assert forecast(how, lambda n, d=degree: float(n**d), full, at) == pytest.approx(at**degree)
    assert forecast(how, lambda n: float(n**terms), full, at) == pytest.approx(at**terms - math.factorial(terms))


def test_weights_of_the_paper():
    assert AdamsBashforth(2).weights((4.0, 3.0), 5.0) == pytest.approx((2, -1))
    assert AdamsBashforth(3).weights((4.0, 3.0, 2.0), 5.0) == pytest.approx((3, -3, 1))
    assert AdamsBashforth(5, "unit").weights((5.0, 4.0, 3.0, 2.0, 1.0), 6.0) == pytest.approx((5, -10, 10, -5, 1))


@pytest.mark.parametrize("terms", [1, 2, 3, 4])
@pytest.mark.parametrize("spacing", ["nodes", "unit"])
def test_weights_add_up_to_one(terms, spacing):
    past = (12.0, 6.0, 4.0, 3.0)[:terms] if spacing == "nodes" else (12.0, 6.0, 4.0, 3.0, 2.0, 1.0, 0.0)
    for now in (13.0, 15.0, 17.0):
        assert sum(AdamsBashforth(terms, spacing).weights(past, now)) == pytest.approx(1)


def test_as_released_estimates_are_made_of_estimates():
    """Full at 0, 1, 2, 5: what stands at 4 is 2 F2 - F1 continued, so the value at 6 is 2 F5 - (3 F2 - 2 F1)."""
    values = {0: 1.0, 1: 5.0, 2: 2.0, 5: 7.0}
    third = 2 * values[2] - values[1]  # at 3
    fourth = 2 * third - values[2]
    assert forecast(AdamsBashforth(2, "unit"), values.get, [0, 1, 2, 5], 6) == pytest.approx(2 * values[5] - fourth)
    assert forecast(AdamsBashforth(2), values.get, [0, 1, 2, 5], 6) == pytest.approx(values[5] + (values[5] - values[2]) / 3)


def test_two_terms_are_newtons_first_order():
    for past, now in (((4.0, 3.0), 5.0), ((12.0, 6.0), 15.0)):
        assert AdamsBashforth(2).weights(past, now) == pytest.approx(Taylor(1, "newton").weights(past, now))


@pytest.mark.parametrize(("h", "ratio"), [(0.1, 1.00768), (0.5, 1.15609), (1e-4, 1.0)])
def test_the_ratio_of_outputs_makes_both_integrators_agree(h, ratio):
    assert decay(h) == pytest.approx(ratio, abs=1e-5)
    at, old = -1.3, 0.7  # the older log-SNR and output
    here, new = at + h, decay(h) * old
    exponential = new * (math.exp(-here) - math.exp(-here - h))  # the integral of exp(-l) with the newer output held
    two_steps = h * (1.5 * math.exp(-here) * new - 0.5 * math.exp(-at) * old)
    assert two_steps == pytest.approx(exponential, abs=1e-12)


def test_the_ratio_takes_its_distance_from_the_noise_levels():
    how, last, now = AdamsBashforth(spacing="log-snr"), Step(3, sigma=2.0), Step(4, sigma=2.0 * math.exp(-0.5))
    history = how.learn((), last, (), (torch.tensor([3.0]),))
    assert float(how.estimate(history, now, ())[0]) == pytest.approx(3 * 1.15609, abs=1e-4)
    assert float(how.estimate(history, Step(5), ())[0]) == 3.0  # not known: held


def test_the_released_schedule():
    with omnicache.cache(pipe := Pipe(dit()), "ab-cache") as run:
        pipe(num_inference_steps=50)
    assert full_steps(run.computed) == [0, 1, 2, 3, 4, 6, 12, 18, 24, 30, 36, 42, 48]


@pytest.mark.parametrize("guidance", ["batched", "calls"])
def test_nothing_of_the_model_runs_and_two_outputs_are_kept(guidance):
    kept = []
    for layers in (2, 5):
        with omnicache.cache(pipe := Pipe(sd3(layers=layers)), "ab-cache", interval=3) as run:
            pipe(guidance=guidance, num_inference_steps=12)
        kept.append(run.cache_bytes)
    assert kept[0] == kept[1] == 2 * 2 * 4 * 8 * 8 * 4  # two outputs for each of two branches
