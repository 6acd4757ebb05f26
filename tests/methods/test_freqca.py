"""FreqCa (arXiv 2510.08669): the tests of its reference."""

import math

import pytest
import torch

import omnicache
from omnicache.granularity import Final
from omnicache.models.latent import Latent
from omnicache.policy import Policy
from omnicache.predictors import Frequencies, Hermite, Hold, Taylor
from omnicache.predictors.frequencies import _cosines
from omnicache.runtime.step import Step
from omnicache.triggers import Every, First

from .tiny import Pipe, counted, dit, full_steps, latte, sd3, text_unet


def at(index: int, height: int = 8, width: int = 8) -> Step:
    return Step(index, latent=Latent(2, 1, height, width))


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def forecast(how: Frequencies, values: dict[int, torch.Tensor], step: Step) -> torch.Tensor:
    history = ()
    for i, y in values.items():
        history = how.learn(history, at(i, step.latent.height, step.latent.width), (), (y,))
    return how.estimate(history, step, ())[0]


@pytest.mark.parametrize("transform", ["dct", "fft"])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (4, 12), (6, 5)])
def test_the_split_is_a_projection_and_its_parts_are_orthogonal(transform, height, width):
    how, x, step = Frequencies(cutoff=0.3, transform=transform), noise(2, height * width, 5), at(0, height, width)
    low = how.split(x, step)
    high = x - low
    torch.testing.assert_close(how.split(low, step), low, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(how.split(high, step), torch.zeros_like(x), atol=1e-5, rtol=1e-5)
    assert float((low * high).sum().abs()) < 1e-3
    assert 0.01 < float(low.norm() / x.norm()) < 0.99


def test_coefficients_of_the_reference():
    """Of 64 x 64: 69 of 4096 by the cosine transform, 409 by the one along all tokens."""
    how, step = Frequencies(), at(0, 64, 64)
    eye = torch.eye(64)
    assert round(sum(float(how.split(row.reshape(1, -1, 1).repeat(2, 1, 1), step)[0].norm()) ** 2 for row in _atoms(eye))) == 69
    flat = Frequencies(transform="fft")
    impulse = torch.zeros(2, 4096, 1)
    impulse[:, 0] = 1  # has all frequencies in equal parts, and what is left of it at its place is the share that passes
    assert 4096 * float(flat.split(impulse, step)[0, 0]) == pytest.approx(409, abs=0.01)


def _atoms(eye: torch.Tensor) -> list[torch.Tensor]:
    """The cosines of the lowest 16 x 16 frequencies: no other can pass."""
    table = _cosines(64)
    return [torch.outer(table[i], table[j]) for i in range(16) for j in range(16)]


def test_low_frequencies_are_held_whatever_their_trend_and_high_ones_follow_hermite():
    table = _cosines(8)
    low, high = (torch.outer(table[i], table[i]).reshape(1, 64, 1).repeat(2, 1, 3) for i in (0, 5))
    how = Frequencies(Hold(), Hermite(1, sigma=0.71))
    values = {i: i * (low + high) for i in (2, 3)}
    torch.testing.assert_close(forecast(how, values, at(5)), 3 * low + (3 + 2 * 2 * 0.71**2) * high, atol=1e-4, rtol=1e-4)


def test_without_a_split_it_is_the_forecast_of_the_high_part():
    values = {i: noise(2, 64, 3) * i for i in (1, 4, 9)}
    whole = forecast(Frequencies(Hermite(2), Hermite(2)), values, at(11))
    history, hermite = (), Hermite(2)
    for i, y in values.items():
        history = hermite.learn(history, at(i), (), (y,))
    torch.testing.assert_close(whole, hermite.estimate(history, at(11), ())[0])


def test_in_a_run_without_a_split_it_is_hicache_on_the_last_feature():
    pipe = Pipe(sd3())
    when, hermite = First(3) | Every(3), Hermite(2, since=2, sigma=0.71)
    with omnicache.cache(pipe, Policy(when, Final(), hermite)):
        plain = pipe(num_inference_steps=14)
    with omnicache.cache(pipe, Policy(when, Final(), Frequencies(hermite, hermite))):
        split = pipe(num_inference_steps=14)
    torch.testing.assert_close(split, plain, atol=1e-4, rtol=1e-4)


def test_4_without_a_split_and_with_the_even_scale_it_is_taylorseer_on_the_last_feature():
    pipe = Pipe(sd3())
    when, even = First(3) | Every(3), Hermite(1, since=2, sigma=1 / math.sqrt(2))
    with omnicache.cache(pipe, Policy(when, Final(), Frequencies(even, even))):
        ours = pipe(num_inference_steps=14)
    with omnicache.cache(pipe, Policy(when, Final(), Taylor(1, since=2))):
        torch.testing.assert_close(ours, pipe(num_inference_steps=14), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("transform", ["dct", "fft"])
@pytest.mark.parametrize("model", [dit, sd3, latte, text_unet])
def test_no_block_runs_and_what_follows_them_gets_the_present_time(model, transform):
    film = {"shape": (4, 3, 8, 8)} if model is latte else {}
    pipe = Pipe(model())
    with omnicache.cache(pipe, "freqca", interval=4, transform=transform) as run, counted(pipe.model) as calls:
        out = pipe(num_inference_steps=12, **film)
    assert full_steps(run.computed) == [0, 1, 2, 6, 10]
    assert torch.isfinite(out).all()
    for name, n in calls.items():
        if name.startswith(("transformer_blocks.0.attn1.to_q", "mid_block.resnets.0.conv1")):
            assert n == 5
        if name in ("proj_out", "norm_out", "norm_out.linear", "conv_out"):
            assert n == 12


def test_one_feature_a_branch_is_kept_however_many_blocks_there_are():
    kept = []
    for layers in (2, 6):
        with omnicache.cache(pipe := Pipe(sd3(layers=layers)), "freqca", interval=3, order=2) as run:
            pipe(num_inference_steps=14)
        kept.append(run.cache_bytes)
    assert kept[0] == kept[1] == 3 * 16 * 16 * 4  # three values of 16 tokens of width 16


def test_one_computed_step_in_one_changes_nothing():
    pipe = Pipe(dit())
    plain = pipe()
    with omnicache.cache(pipe, "freqca", interval=1):
        assert torch.equal(pipe(), plain)
