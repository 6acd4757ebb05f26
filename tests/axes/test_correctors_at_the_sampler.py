"""Correctors that act at the sampler, one by one and in turn: what the scheduler is given, and what the model is told."""

import math
import random

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
)

import omnicache
from omnicache.correctors import InTurn, NoiseScaling, PriorNoise, Rectify, StepSizes
from omnicache.errors import OmniCacheError
from omnicache.granularity import Attention, Denoiser
from omnicache.plan import Plan
from omnicache.policy import Corrector, Policy, Sampling, value
from omnicache.predictors import Hold, Residual
from omnicache.runtime.step import Step
from omnicache.triggers import Table

from ..methods.tiny import Pipe, dit, sd3


def field(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def given(i: int = 0, **more) -> Sampling:
    return Sampling(Step(i, 10), field(2, 4, 8, 8), field(2, 4, 8, 8, seed=1), **more)


# --- noise scaling ---------------------------------------------------------------------------------------------------------


def test_the_factor_at_the_ends_and_where_the_stages_meet():
    b = NoiseScaling(0.98, 0.96, 0.4).at
    for time, wanted in ((1.0, 1.0), (0.4, 0.98013), (0.4 - 1e-9, 0.98), (0.0, 0.96071)):
        assert b(time) == pytest.approx(wanted, abs=6e-6)
    assert b(0.4) - b(0.4 - 1e-12) == pytest.approx(0.02 * math.exp(-5), rel=1e-6)  # 1.3e-4
    falling = [b(1 - i / 50) for i in range(51)]
    assert falling == sorted(falling, reverse=True)
    assert NoiseScaling(factor=1 / 0.965).at(0.3) == 1 / 0.965


def test_noise_is_scaled_and_a_variance_beside_it_is_not():
    x = given(time=0.0)
    out, latents, _ = NoiseScaling().sample(None, x)
    assert torch.equal(out, x.output * NoiseScaling().at(0.0))
    assert latents is x.sample
    wide = Sampling(Step(0), field(2, 8, 8, 8), x.sample, time=0.0)
    out, _, _ = NoiseScaling().sample(None, wide)
    assert torch.equal(out[:, :4], wide.output[:, :4] * NoiseScaling().at(0.0))
    assert torch.equal(out[:, 4:], wide.output[:, 4:])


# --- prior noise -----------------------------------------------------------------------------------------------------------


def test_prior_noise_is_that_of_the_first_step():
    fix, x = PriorNoise(0.1), given(time=0.9)
    out, latents, state = fix.sample(fix.init(), x)
    assert latents is x.sample and out is x.output
    later = Sampling(Step(7), x.output, field(2, 4, 8, 8, seed=2), time=0.49)
    _, latents, _ = fix.sample(state, later)
    torch.testing.assert_close(latents, later.sample + 0.1 * x.sample)


# --- rectification ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("numbers", [((0.1,), (0.2,)), ((0.1, -0.2, 0.3, 0.0), (1.0, 0.5, -0.5, 0.0))])
def test_a_planted_affine_error_is_removed(numbers):
    """``v~ = v + a v~ + b`` in every channel, of pictures and of packed tokens."""
    a, b = (torch.tensor(n, dtype=torch.float64) for n in numbers)
    fix = Rectify((None, numbers[0]), (None, numbers[1]))
    for shape, spread in (((2, 4, 8, 8), (1, -1, 1, 1)), ((2, 4, 3, 8, 8), (1, -1, 1, 1, 1)), ((2, 64, 4), (1, 1, -1))):
        v = field(*shape)
        wrong = (v + b.view(spread)) / (1 - a.view(spread))
        torch.testing.assert_close(fix.apply(None, Step(1), wrong), v)
        assert fix.apply(None, Step(0), wrong) is wrong
        assert fix.apply(None, Step(5), wrong) is wrong


def test_rectification_leaves_a_variance_alone():
    v = field(2, 8, 8, 8)
    out = Rectify(((0.5,) * 4,), ((0.0,) * 4,)).apply(None, Step(0), v)
    assert torch.equal(out[:, :4], v[:, :4] - 0.5 * v[:, :4])
    assert torch.equal(out[:, 4:], v[:, 4:])


# --- step sizes ------------------------------------------------------------------------------------------------------------


def sizes(phi, sigmas, reused=None):
    """How far each step goes in the end, and the lags in between."""
    fix = StepSizes(tuple(phi))
    state, steps, lags = fix.init(), [], []
    for i in range(len(sigmas) - 1):
        lags.append(fix.lag(state))
        x = given(i, reused=reused is None or reused[i], sigmas=(sigmas[i], sigmas[i + 1]))
        out, latents, state = fix.sample(state, x)
        assert latents is x.sample
        steps.append((sigmas[i] - sigmas[i + 1]) * float(out.flatten()[0] / x.output.flatten()[0]))
    return steps, lags


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("spaced", ["evenly", "unevenly"])
def test_steps_sum_to_one_whatever_the_shares(seed, spaced):
    dice, n = random.Random(seed), 12
    phi = [dice.choice((None, dice.random(), 0.0, 1.0)) for _ in range(n)]
    sigmas = [1 - i / n for i in range(n + 1)]
    if spaced == "unevenly":
        sigmas = [3 * s / (1 + 2 * s) for s in sigmas]
    steps, lags = sizes(phi, sigmas)
    assert sum(steps) == pytest.approx(1.0)
    assert all(s >= -1e-12 for s in steps)
    for i, lag in enumerate(lags):  # the lag says where the latents are
        assert lag * sigmas[i] == pytest.approx(1 - sum(steps[:i]))


def test_what_is_left_is_spread_evenly_over_even_steps():
    """The paper's ``(1 - sum dt) / (steps left)``."""
    steps, _ = sizes([None, 0.5, None, 0.25, None], [1.0, 0.8, 0.6, 0.4, 0.2, 0.0])
    assert steps == pytest.approx([0.2, 0.5 * 0.2, 0.7 / 3, 0.25 * 0.7 / 3, 1 - 0.3 - 1.25 * 0.7 / 3])


def test_steps_that_were_computed_after_all_are_whole():
    assert sizes([0.5] * 4, [1.0, 0.75, 0.5, 0.25, 0.0], [False] * 4)[0] == [0.25] * 4


@pytest.mark.parametrize(
    "scheduler",
    [
        FlowMatchHeunDiscreteScheduler(),
        DDIMScheduler(),
        EulerDiscreteScheduler(),
        FlowMatchEulerDiscreteScheduler(stochastic_sampling=True),
        DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True),
    ],
    ids=lambda s: type(s).__name__,
)
def test_samplers_that_are_not_eulers_are_refused(scheduler):
    plan = Plan("sizes", (Policy(Table("#.#.##"), Denoiser(), Residual(Hold()), fix=StepSizes((None, 0.5, None, 0.5))),))
    pipe = Pipe(sd3(), scheduler)
    with pytest.raises(OmniCacheError, match=f"Euler steps, and {type(scheduler).__name__} makes others"):
        omnicache.enable(pipe, plan)
    assert "step" not in vars(scheduler)
    euler = Pipe(pipe.model, FlowMatchEulerDiscreteScheduler(shift=3.0))
    run = omnicache.enable(euler, plan)
    euler(num_inference_steps=6)
    assert run.computed == "#.#.##"
    euler.scheduler = scheduler  # exchanged after it was enabled
    omnicache.disable(euler)


def test_a_scheduler_that_came_later_and_is_not_eulers_is_left_uncached():
    pipe = Pipe(sd3(), FlowMatchEulerDiscreteScheduler())
    with omnicache.cache(pipe, Policy(Table("#.#.#.#"), Denoiser(), Residual(Hold()), fix=StepSizes((None, 0.5)))) as run:
        pipe.scheduler = FlowMatchHeunDiscreteScheduler()
        pipe(num_inference_steps=4)
    assert set(run.computed) == {"#"}
    assert "Euler steps, and FlowMatchHeunDiscreteScheduler makes others" in str(run)


class Told(Pipe):
    """Notes what the model was told, and what it answered."""

    def evaluate(self, x, t, conditions):
        out = super().evaluate(x, t, conditions)
        self.seen.append((x, float(t), out))
        return out


def test_latents_go_a_share_of_the_way_and_the_model_is_told_where_they_are():
    pipe = Told(sd3(), FlowMatchEulerDiscreteScheduler())
    times, pipe.seen = [], []
    hook = pipe.model.register_forward_pre_hook(lambda _, a, k: times.append(float(k["timestep"].max())), with_kwargs=True)
    phi = (None, 0.5, None, 0.25, None, 0.3)
    with omnicache.cache(pipe, Policy(Table("#.#.#."), Denoiser(), Residual(Hold()), fix=StepSizes(phi))) as run:
        end = pipe(num_inference_steps=6)
    hook.remove()
    assert run.computed == "#.#.#."
    sigmas = pipe.scheduler.sigmas.tolist()
    left = 1.0
    for i, (x, _, v) in enumerate(pipe.seen):
        if i % 2 == 0:
            assert times[i // 2] == pytest.approx(1000 * left, rel=1e-5)
        going = left * (1 - sigmas[i + 1] / sigmas[i]) * ((phi[i] or 1.0) if i < 5 else 1.0)
        following = pipe.seen[i + 1][0] if i < 5 else end
        torch.testing.assert_close(following, x - going * v, rtol=1e-4, atol=1e-5)
        left -= going
    assert left == pytest.approx(0.0, abs=1e-6)
    assert times[1] > 1000 * sigmas[2] + 1


# --- in turn, and side by side ---------------------------------------------------------------------------------------------


@value
class Add(Corrector):
    """Adds a number to everything, and counts."""

    by: float

    def init(self):
        return 0

    def apply(self, state, step, estimate):
        return estimate + self.by

    def sample(self, state, given):
        return given.output + self.by, given.sample * (1 + self.by), state + 1

    def lag(self, state):
        return 1.0 + self.by * state


def test_in_turn_each_has_its_own_state():
    fix, x = InTurn(Add(1.0), NoiseScaling(factor=0.5)), given()
    out, latents, state = fix.sample(fix.init(), x)
    torch.testing.assert_close(out, 0.5 * (x.output + 1))
    torch.testing.assert_close(latents, 2 * x.sample)
    assert state == (1, None)
    assert fix.lag(state) == 2.0
    assert torch.equal(fix.apply(fix.init(), Step(0), x.output), x.output + 1)
    assert fix.samples and not fix.rehearses


def test_a_run_that_is_left_uncached_is_not_corrected_either():
    pipe = Pipe(dit(out_channels=4))
    plain = pipe(num_inference_steps=4)
    plan = Policy(Table("#.#."), Attention(), fix=NoiseScaling())
    with omnicache.cache(pipe, plan):  # fewer than five steps
        assert torch.equal(pipe(num_inference_steps=4), plain)
    with omnicache.cache(pipe, Plan("short", (plan,), min_steps=0)):
        assert not torch.equal(pipe(num_inference_steps=4), plain)


def test_two_pipelines_around_one_model_have_states_of_their_own():
    """The first, nested in the second's run, must not see what the second has kept at its sampler, nor the reverse."""
    a, b = Pipe(dit(out_channels=4)), Pipe(dit(out_channels=4), DDIMScheduler(clip_sample=False, timestep_spacing="trailing"))
    b.transformer = a.model
    policy = Policy(Table("#.#.#."), Attention(), fix=InTurn(PriorNoise(0.2), Add(0.001)))
    alone = []
    for pipe, label in ((a, 1), (b, 2)):
        with omnicache.cache(pipe, policy):
            alone.append(pipe(label, num_inference_steps=6))
    run, count = omnicache.enable(a, policy), []

    class Nesting(Pipe):
        def evaluate(self, x, t, conditions):
            count.append(1)
            if len(count) == 4:
                assert torch.equal(b(2, num_inference_steps=6), alone[1])
            return super().evaluate(x, t, conditions)

    a.__class__ = Nesting
    assert torch.equal(a(1, num_inference_steps=6), alone[0])
    assert run.sessions[0].bytes() == 0
    omnicache.disable(a)
