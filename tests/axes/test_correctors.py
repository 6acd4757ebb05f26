"""Repairs: test 8 (the filter) of OmniCache-Trajectory's reference, and what is subtracted when."""

import pytest
import torch

from omnicache.correctors import NoiseCorrection
from omnicache.correctors.noise import band
from omnicache.runtime.step import Step


def field(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(2, 4, 8, 8), (1, 3, 7, 9), (1, 4, 5, 6, 10)])
@pytest.mark.parametrize("cutoff", [0.05, 0.25, 1.0])
def test_8_low_and_high_sum_to_the_whole(shape, cutoff):
    q = field(*shape)
    low, high = band(q, cutoff, high=False), band(q, cutoff, high=True)
    torch.testing.assert_close(low + high, q, rtol=0, atol=1e-6)
    assert low.shape == q.shape
    assert low.dtype == q.dtype
    assert not low.is_complex()
    assert 0 < float(low.norm()) < float(q.norm())


def test_8_a_constant_field_is_all_low():
    q = torch.full((1, 2, 8, 8), 3.5, dtype=torch.float64)
    torch.testing.assert_close(band(q, 0.25, high=False), q, rtol=0, atol=1e-6)
    assert float(band(q, 0.25, high=True).abs().max()) < 1e-6


def test_8_a_checkerboard_is_all_high():
    i = torch.arange(8)
    q = (1.0 - 2.0 * ((i[:, None] + i[None, :]) % 2)).double()[None, None]
    assert float(band(q, 0.25, high=False).abs().max()) < 1e-4  # exp(-2 / (2 * 0.25 ** 2)), the corner of the spectrum
    torch.testing.assert_close(band(q, 0.25, high=True), q, rtol=0, atol=1e-4)


def test_8_a_wave_is_damped_by_the_gaussian_of_its_frequency():
    x = torch.arange(16, dtype=torch.float64)
    wave = torch.cos(2 * torch.pi * 2 * x / 16).expand(1, 1, 16, 16)  # an eighth of the sampling rate: a quarter of Nyquist
    expected = torch.exp(torch.tensor(-(0.25**2) / (2 * 0.25**2), dtype=torch.float64))
    torch.testing.assert_close(band(wave, 0.25, high=False), wave * expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("high", [False, True])
def test_8_it_is_linear_and_keeps_pictures_apart(high):
    a, b = field(2, 4, 8, 8), field(2, 4, 8, 8, seed=1)
    torch.testing.assert_close(
        band(2 * a - 3 * b, 0.25, high), 2 * band(a, 0.25, high) - 3 * band(b, 0.25, high), rtol=0, atol=1e-5
    )
    torch.testing.assert_close(band(a, 0.25, high)[1:, 2:3], band(a[1:, 2:3], 0.25, high))


def test_8_packed_tokens_are_filtered_as_the_picture_they_make():
    q = field(2, 16, 8, 8)
    tokens = q.flatten(2).transpose(1, 2)
    for high in (False, True):
        torch.testing.assert_close(band(tokens, 0.25, high), band(q, 0.25, high).flatten(2).transpose(1, 2))
    assert torch.equal(band(tokens[:, :60], 0.25, high=False), tokens[:, :60])  # no square: no filter


def corrected(fix: NoiseCorrection, index: int, q: torch.Tensor | None, estimate: torch.Tensor) -> torch.Tensor:
    truth = torch.zeros_like(estimate)
    state = fix.learn(fix.init(), Step(1), truth, () if q is None else (truth + q,))
    return fix.apply(state, Step(index), estimate)


def test_the_noise_is_subtracted_times_gamma():
    estimate, q = field(1, 4, 8, 8), field(1, 4, 8, 8, seed=1)
    fix = NoiseCorrection((None, None, 0.5, 0.25), cutoff=None)
    assert torch.equal(corrected(fix, 2, q, estimate), estimate - 0.5 * q)
    assert torch.equal(corrected(fix, 3, q, estimate), estimate - 0.25 * q)


@pytest.mark.parametrize("gamma", [None, 0.0, -0.5])
def test_where_nothing_is_carried_the_estimate_stays_as_it_is(gamma):
    estimate, q = field(1, 4, 8, 8), field(1, 4, 8, 8, seed=1)
    assert corrected(NoiseCorrection((None, None, gamma)), 2, q, estimate) is estimate
    assert corrected(NoiseCorrection((None, None, 1.0)), 2, None, estimate) is estimate  # nothing was measured
    assert corrected(NoiseCorrection((None, None, 1.0)), 5, q, estimate) is estimate  # beyond the plan
    assert NoiseCorrection((None, None, 1.0)).apply(q[:, :, :4], Step(2), estimate) is estimate  # of another shape


def test_low_pass_before_the_switch_and_high_pass_from_it_on():
    estimate, q = field(1, 4, 8, 8), field(1, 4, 8, 8, seed=1)
    fix = NoiseCorrection((1.0,) * 6, cutoff=0.25, switch=3)
    torch.testing.assert_close(estimate - corrected(fix, 2, q, estimate), band(q, 0.25, high=False))
    torch.testing.assert_close(estimate - corrected(fix, 3, q, estimate), band(q, 0.25, high=True))


def test_channels_beyond_the_mean_are_left_alone():
    estimate, q = field(1, 8, 8, 8), field(1, 8, 8, 8, seed=1)
    before = estimate.clone()
    out = corrected(NoiseCorrection((1.0,) * 3, cutoff=None, channels=4), 2, q, estimate)
    torch.testing.assert_close(out[:, :4], estimate[:, :4] - q[:, :4])
    assert torch.equal(out[:, 4:], estimate[:, 4:])
    assert torch.equal(estimate, before)


def test_it_is_rehearsed_only_where_a_reuse_that_is_corrected_follows():
    fix = NoiseCorrection((None, None, 0.5, 0.5, None, 0.0, None, None, 0.0, 0.7))
    asked = [bool(fix.rehearse(Step(i))) for i in range(10)]
    assert [i for i, a in enumerate(asked) if a and fix.gamma[i] is None] == [1, 7]


def test_a_full_step_without_a_rehearsal_forgets_the_noise():
    fix = NoiseCorrection((1.0,) * 9, cutoff=None)
    q = field(1, 4, 8, 8)
    state = fix.learn(fix.init(), Step(1), q * 0, (q,))
    assert torch.equal(state, q)
    assert fix.learn(state, Step(4), q, ()) is None
