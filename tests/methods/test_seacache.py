"""SeaCache (arXiv 2602.18993): the tests of its reference."""

import math

import diffusers
import pytest
import torch

import omnicache
from omnicache.models.latent import Latent
from omnicache.runtime.seen import PEEKED, STEP
from omnicache.runtime.step import Step
from omnicache.signals import ContentChange
from omnicache.signals.content import gains, wiener

from .tiny import Curves, Pipe, dit, full_steps, latte, sd3

GAINS = {
    (2.0, 0.9): [3.30425, 1.45843, 0.54503, 0.26667, 0.15549, 0.26667, 0.54503, 1.45843],
    (2.0, 0.5): [1.08035, 1.06373, 1.01680, 0.94716, 0.86428, 0.94716, 1.01680, 1.06373],
    (3.0, 0.9): [1.96133, 1.69343, 0.86569, 0.37206, 0.17630, 0.37206, 0.86569, 1.69343],
    (3.0, 0.5): [1.03172, 1.02971, 1.01585, 0.98004, 0.91709, 0.98004, 1.01585, 1.02971],
}
"""By the power of the spectrum and the noise level: the reference's for pictures, and for films worked out from its formula."""


@pytest.mark.parametrize(("power", "sigma"), GAINS)
def test_gains_of_the_reference(power, sigma):
    found = gains(8, 1 - sigma, sigma, power)
    assert found.tolist() == pytest.approx(GAINS[power, sigma], abs=1e-4)
    assert float(found.mean()) == pytest.approx(1)
    assert bool((found[:5].diff() < 0).all())  # low-pass


def test_little_noise_leaves_all_as_it_is():
    assert float((gains(8, 0.9, 0.1, 2.0) - 1).abs().max()) < 0.003
    x = torch.randn(2, 1, 8, 6, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(wiener(x, (2, 3), 1.0, 0.0, 2.0), x, atol=1e-4, rtol=1e-4)


def test_a_common_factor_of_picture_and_noise_does_not_matter():
    torch.testing.assert_close(gains(8, 0.1, 0.9, 2.0), gains(8, 1.0, 9.0, 2.0))
    assert Step(0, sigma=0.25, flow=True).mix == (0.75, 0.25)
    assert Step(0, sigma=3.0).mix == (1.0, 3.0)
    assert Step(0).mix is None


@pytest.mark.parametrize(("frames", "power"), [(1, 2.0), (4, 3.0)])
def test_films_have_a_spectrum_of_their_own_and_are_filtered_along_time(frames, power):
    film = torch.randn(1, frames, 8, 6, 3, generator=torch.Generator().manual_seed(0))
    step = Step(3, sigma=0.7, flow=True, latent=Latent(1, frames, 8, 6))
    found = ContentChange().probe(None, {PEEKED: film.flatten(1, 3), STEP: step})
    axes = (1, 2, 3) if frames > 1 else (2, 3)
    torch.testing.assert_close(found.reshape(film.shape), wiener(film, axes, 0.3, 0.7, power))


def test_order_one_goes_on_along_a_straight_line():
    """The increment of all blocks is a line in the timestep, and timesteps lie evenly."""
    pipe = Pipe(Curves(lambda t: t / 1000))
    options = {"threshold": math.inf, "of": "latent", "warmup": 2, "tail": 0}
    plain = pipe(dtype=torch.float64)
    with omnicache.cache(pipe, "seacache", order=1, **options) as run:
        torch.testing.assert_close(pipe(dtype=torch.float64), plain)
    assert run.computed == "##........"
    with omnicache.cache(pipe, "seacache", **options), pytest.raises(AssertionError):
        torch.testing.assert_close(pipe(dtype=torch.float64), plain)


def test_change_of_noise_counts_less_than_as_much_change_of_content():
    draw = torch.Generator().manual_seed(0)
    before = torch.randn(1, 64, 3, generator=draw)
    noise = torch.randn(1, 64, 3, generator=draw)
    wave = torch.cos(2 * math.pi / 8 * torch.arange(8.0))[:, None].expand(8, 8).reshape(1, 64, 1).expand(1, 64, 3)
    step = Step(3, sigma=0.9, flow=True, latent=Latent(1, 1, 8, 8))
    signal = ContentChange()

    def change(added: torch.Tensor) -> float:
        now, then = (signal.probe(None, {PEEKED: x, STEP: step}) for x in (before + added * before.norm() / added.norm(), before))
        return float(signal.change(signal.sums(now, then)))

    assert change(noise) < 0.5 * change(wave)


@pytest.mark.parametrize("model", [dit, sd3])
def test_with_hardly_any_noise_it_is_teacache(model):
    pipe = Pipe(model())
    options = {"threshold": 0.12, "warmup": 1, "tail": 1}
    quiet = diffusers.FlowMatchEulerDiscreteScheduler()
    quiet.set_timesteps(20)
    pipe.scheduler = quiet
    with omnicache.cache(pipe, "seacache", **options) as ours:
        pipe(num_inference_steps=20)
    with omnicache.cache(pipe, "teacache", **options) as theirs:
        pipe(num_inference_steps=20)
    assert ours.computed.count("#") >= 2 and theirs.computed.count("#") >= 2
    late = [r.signals for r in ours.trace.records][-1], [r.signals for r in theirs.trace.records][-1]
    a, b = (next(iter(found.values())) for found in late)
    torch.testing.assert_close(a, b, rtol=0.05, atol=1e-4)  # the last step, where noise is least


@pytest.mark.parametrize("of", ["modulated", "latent"])
@pytest.mark.parametrize("model", [dit, sd3, latte])
def test_thresholds(model, of):
    shape = {"shape": (4, 3, 8, 8)} if model is latte else {}
    pipe = Pipe(model())
    for threshold, strip in ((-math.inf, "#" * 10), (math.inf, "#........#")):
        with omnicache.cache(pipe, "seacache", threshold=threshold, of=of) as run:
            pipe(**shape)
        assert run.computed == strip


def test_at_most_so_many_reuses_in_a_row():
    with omnicache.cache(pipe := Pipe(dit()), "seacache", threshold=math.inf, longest=2, tail=0) as run:
        pipe(num_inference_steps=10)
    assert full_steps(run.computed) == [0, 3, 6, 9]


def test_where_the_noise_level_is_not_known_the_plain_input_is_watched_and_it_is_said():
    model = dit()
    with omnicache.cache(model, "seacache", threshold=math.inf, tail=0) as run:
        for i in range(4):
            model(torch.zeros(1, 4, 8, 8) + i, timestep=torch.tensor([900 - i]), class_labels=torch.tensor([1]))
    assert run.computed == "#..." and "ContentChange" in str(run)
