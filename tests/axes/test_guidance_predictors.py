"""Predictors between the branches of guidance, and of what attention gives."""

import pytest
import torch

from omnicache.errors import OmniCacheError
from omnicache.granularity import Guidance
from omnicache.models import discover
from omnicache.predictors import Bands, Constant, Extrapolate, Pooled, Residual, Same, Zero
from omnicache.runtime.step import Step

from ..methods.tiny import dit


def planes(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def released(v_c: torch.Tensor, d: torch.Tensor, w1: float, w2: float, radius: int) -> torch.Tensor:
    """FasterCache's way: shifted spectra, a disc around the middle."""
    h, w = v_c.shape[-2:]
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    low = (y - h // 2) ** 2 + (x - w // 2) ** 2 <= radius**2
    shift = lambda t: torch.fft.fftshift(torch.fft.fft2(t), dim=(-2, -1))  # noqa: E731
    whole = shift(v_c) * low + w1 * shift(d) * low + shift(v_c) * ~low + w2 * shift(d) * ~low
    return torch.fft.ifft2(torch.fft.ifftshift(whole, dim=(-2, -1))).real


@pytest.mark.parametrize("shape", [(2, 4, 16, 16), (1, 3, 4, 15, 20), (1, 2, 7, 9)])
def test_bands_are_what_was_released(shape):
    v_c, v_u, now = (planes(*shape, seed=i) for i in range(3))
    how = Residual(Bands(1.15, 1.3, low_until=1.0, high_from=0.0))
    history = how.learn((), Step(4, 10), (v_c,), (v_u,))
    (found,) = how.estimate(history, Step(5, 10), (now,))
    torch.testing.assert_close(found, released(now, v_u - v_c, 1.15, 1.3, min(shape[-2:]) // 5), rtol=1e-12, atol=1e-12)


def test_the_two_bands_make_up_the_plane():
    v_c, v_u = planes(1, 4, 16, 16), planes(1, 4, 16, 16, seed=1)
    bands = Bands(2.0, 1.0, low_until=1.0)
    (low,), (high,) = ([b._scaled(v_u, *w) for b in (bands,)] for w in ((1.0, 0.0), (0.0, 1.0)))
    torch.testing.assert_close(low + high, v_u, rtol=1e-12, atol=1e-12)
    assert low.abs().max() > 0.1 < high.abs().max()
    how = Residual(Bands(1.0, 1.0))  # alpha = 0: the refresh step's own conditional output gives the unconditional one
    (found,) = how.estimate(how.learn((), Step(3, 9), (v_c,), (v_u,)), Step(3, 9), (v_c,))
    torch.testing.assert_close(found, v_u, rtol=1e-15, atol=1e-14)


def test_factors_hold_in_their_part_of_the_run_and_compound_only_if_asked():
    bands = Bands(1.1, 1.2, low_until=0.5, high_from=0.3)
    assert [bands.factors(Step(0, 10), Step(i, 10)) for i in (1, 3, 6)] == [(1.1, 1.0), (1.1, 1.2), (1.0, 1.2)]
    assert bands.factors(Step(0), Step(1)) == (1.0, 1.0)
    grown = Bands(1.1, 1.2, low_until=0.5, high_from=0.3, compound=True)
    low, high = zip(*(grown.factors(Step(1, 10), Step(i, 10)) for i in (2, 3, 4, 5)), strict=True)
    assert low == pytest.approx((1.1, 1.21, 1.331, 1.331))
    assert high == pytest.approx((1.0, 1.2, 1.44, 1.728))


def test_tokens_in_a_row_have_no_planes_and_half_precision_is_scaled_in_single():
    tokens = planes(2, 16, 16).float()
    bands = Bands(2.0, 1.0, low_until=1.0)
    assert torch.equal(bands.estimate(bands.learn((), Step(0, 9), (), (tokens,)), Step(1, 9), ())[0], tokens)
    half = planes(1, 4, 16, 16).bfloat16()
    (found,) = bands.estimate(bands.learn((), Step(0, 9), (), (half,)), Step(1, 9), ())
    assert found.dtype is torch.bfloat16
    torch.testing.assert_close(found, bands._scaled(half.double(), 2.0, 1.0).bfloat16(), rtol=2e-2, atol=2e-2)


def test_two_computed_values_are_continued():
    how, history = Extrapolate(0.5), ()
    for i in (3, 5):
        history = how.learn(history, Step(i), (), (torch.tensor([2.0 * i + 1]),))
    torch.testing.assert_close(
        how.estimate(history, Step(6), ())[0], torch.tensor([13.0])
    )  # a line, one step ahead of a gap of two
    assert torch.equal(Extrapolate(0.0).estimate(history, Step(6), ())[0], torch.tensor([11.0]))
    assert torch.equal(how.estimate(history[:1], Step(6), ())[0], torch.tensor([11.0]))


def test_a_weight_may_be_a_curve():
    how = Extrapolate(((6 / 30, 0.0), (29 / 30, 1.035)))  # Open-Sora's 0.9 (c - 7) / 20, with c counted from 1
    assert [how.at(Step(c - 1, 30)) for c in (1, 7, 17, 27, 30)] == pytest.approx([0.0, 0.0, 0.45, 0.9, 1.035])
    mochi = Extrapolate(((31.5 / 64, 0.5), (63 / 64, 1.0)))
    assert [mochi.at(Step(c, 64)) for c in (0, 20, 40, 63)] == pytest.approx([max(0.5, c / 63) for c in (0, 20, 40, 63)])
    with pytest.raises(OmniCacheError, match="must rise"):
        Extrapolate(((0.5, 1.0), (0.5, 2.0)))


def test_a_constant_keeps_one_row_and_refuses_rows_that_differ():
    how, value = Constant(), torch.randn(3, 1, 8).expand(3, 50, 8).contiguous()
    assert how.misfit((value,)) is None
    assert "more than one token" in (how.misfit((value + torch.arange(50.0)[None, :, None],)) or "")
    history = how.learn((), Step(0), (), (value,))
    assert history[0].tensors[0].untyped_storage().nbytes() == 3 * 8 * 4
    assert torch.equal(how.estimate(history, Step(4), ())[0], value)


def test_same_zero_and_pooled():
    x = torch.randn(2, 3)
    assert Same().estimate((), Step(1), (x,))[0] is x
    assert torch.equal(Zero().estimate(Zero().learn((), Step(0), (), (x,)), Step(1), ())[0], torch.zeros(2, 3))
    assert Zero().learn((), Step(0), (), (x,))[0].tensors[0].untyped_storage().nbytes() == 4
    assert Pooled(since=3).pools == 3
    assert torch.equal(Pooled().estimate(Pooled().learn((), Step(0), (), (x,)), Step(1), ())[0], x)


def test_guidance_is_a_place_of_any_model():
    found = discover(dit())
    one, other = (Guidance(runs).select(found) for runs in ("conditional", "unconditional"))
    assert [s.kind for s in one] == ["guidance"]
    assert one == other  # one place, whichever way it is gone
    assert one[0].layout == "conditional"
    with pytest.raises(OmniCacheError):
        Guidance("both")
