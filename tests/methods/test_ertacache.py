"""ERTACache (arXiv 2508.21091): the tests that its reference asks for."""

import math

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import nn

import omnicache
from omnicache.calibrate.errors_of_reuse import Line, Replay
from omnicache.correctors import InTurn, Rectify, StepSizes
from omnicache.errors import OmniCacheError
from omnicache.granularity import Denoiser
from omnicache.methods.ertacache import ertacache
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.predictors import Hold, Residual
from omnicache.runtime.step import Step
from omnicache.triggers import Table

from .tiny import Doubling, Pipe, counted, ddim, dit, number, sd3

T = 8
CALL = {"progress": False, "num_inference_steps": T}


def flow():
    return FlowMatchEulerDiscreteScheduler(shift=2.0)


class Mixture(nn.Module):
    """The velocity of flow matching to a mixture of Gaussians, exactly."""

    def __init__(self, size: float = 0.3):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(1, 1)) for _ in range(2))
        for p in self.blocks.parameters():
            nn.init.ones_(p)  # the same in all of them, as plans know the weights that they were made for
        draw = torch.Generator().manual_seed(0)
        self.means, self.size = torch.randn(4, 4, 8, 8, generator=draw), size

    def forward(self, hidden_states, timestep):
        t = (timestep / 1000).view(-1, 1, 1, 1)
        variance = ((1 - t) * self.size) ** 2 + t**2
        off = hidden_states[:, None] - (1 - t)[:, None] * self.means[None]
        shares = torch.softmax(-off.square().sum((2, 3, 4)) / (2 * variance.view(-1, 1)), 1)[..., None, None, None]
        data = (shares * (self.means[None] + ((1 - t) * self.size**2 / variance)[:, None] * off)).sum(1)
        return (hidden_states - data) / t


class Linear(nn.Module):
    """``v = A x`` in every place, whatever the time."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(1, 1)) for _ in range(2))
        self.a = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))

    def forward(self, hidden_states, timestep):
        return torch.einsum("dc,bchw->bdhw", self.a, hidden_states)


class Watched(Pipe):
    """Keeps the latents before each step and after the last, and the model's answers."""

    def __call__(self, *args, **kwargs):
        self.xs, self.vs = [], []
        self.xs.append(out := super().__call__(*args, **kwargs))
        return out

    def evaluate(self, x, t, conditions):
        self.xs.append(x)
        self.vs.append(super().evaluate(x, t, conditions))
        return self.vs[-1]


def lengths(sigmas, phi):
    """How far each step goes when all but the last follow their shares."""
    steps, lag = [], 1.0
    for i in range(len(sigmas) - 1):
        share = phi[i] if phi and phi[i] is not None and i < len(sigmas) - 2 else 1.0
        steps.append(lag * share * (sigmas[i] - sigmas[i + 1]))
        lag = (lag * sigmas[i] - steps[-1]) / sigmas[i + 1] if sigmas[i + 1] else 1.0
    return steps


# --- the plan --------------------------------------------------------------------------------------------------------------


def test_1_steps_sum_to_the_whole_way_in_a_run():
    """The latents go by Euler's steps of the outputs, each as long as the shares before it leave it; together they are 1."""
    pipe, phi = Watched(Linear(), flow()), (None, 0.3, 0.9, None, 0.1, None, 0.5, 0.7)
    with omnicache.cache(pipe, "ertacache", schedule="#..#.#..", phi=phi) as run:
        end = pipe(num_inference_steps=T)
    assert run.computed == "#..#.#.."
    steps = lengths(pipe.scheduler.sigmas.tolist(), phi)
    assert sum(steps) == pytest.approx(1.0)
    for i, (step, v) in enumerate(zip(steps, pipe.vs, strict=True)):
        torch.testing.assert_close(pipe.xs[i + 1], pipe.xs[i] - step * v, rtol=1e-4, atol=1e-4)
    assert pipe.xs[-1] is end


def test_2_without_error_and_adjustment_it_is_plain_reuse_of_the_increment():
    pipe, marks = Pipe(sd3(), flow()), "#..#..#."
    with omnicache.cache(pipe, Policy(Table(marks), Denoiser(), Residual(Hold()))):
        plain = pipe(num_inference_steps=T)
    nothing = ((0.0,) * 4,) * T
    with omnicache.cache(pipe, "ertacache", schedule=marks, slope=nothing, offset=nothing, phi=(1.0,) * T) as run:
        assert torch.equal(pipe(num_inference_steps=T), plain)
    assert run.computed == marks


def test_what_is_kept_is_the_output_less_the_input():
    """The toy of the reference: 10 gives 40, so 11 gives 41."""
    model = Doubling()
    with omnicache.cache(model, Plan("toy", ertacache(schedule="#.").policies, min_steps=0)) as run:
        assert float(model(number(10), 900.0)) == 40
        assert float(model(number(11), 800.0)) == 41
    assert run.computed == "#."


def test_nothing_of_the_model_runs_on_a_reuse_step():
    model = sd3()
    pipe = Pipe(model, flow())
    with omnicache.cache(pipe, "ertacache", schedule="#...#..."), counted(model) as calls:
        pipe(num_inference_steps=T, guidance="calls")
    assert set(calls.values()) <= {4, 8}
    assert calls["transformer_blocks.0"] == 4


def test_of_a_variance_beside_the_noise_nothing_is_an_increment():
    """Channels that the latents do not have are held as they are."""
    model, plan = dit(out_channels=8), Plan("toy", ertacache(schedule="#.").policies, min_steps=0)
    a, b = torch.randn(2, 1, 4, 8, 8)
    more = {"class_labels": torch.tensor([1])}
    with omnicache.cache(model, plan) as run:
        first = model(a, torch.tensor([900]), **more).sample
        second = model(b, torch.tensor([800]), **more).sample
    assert run.computed == "#."
    torch.testing.assert_close(second[:, :4], first[:, :4] + b - a)
    assert torch.equal(second[:, 4:], first[:, 4:])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "needs a calibrated schedule"),
        ({"schedule": "#a"}, "needs a calibrated schedule"),
        ({"schedule": "#..", "phi": (0.5,)}, "1 entries do not fit a schedule of 3 steps"),
        ({"schedule": "#.", "slope": ((0.1,), (0.1,))}, "go together"),
        ({"schedule": "#.", "phi": (None, 1.5)}, "outside"),
    ],
)
def test_what_does_not_fit_is_refused(options, said):
    with pytest.raises(OmniCacheError, match=said):
        ertacache(**options)


# --- calibration -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("guidance", [0, 1])
def test_3_a_planted_affine_error_is_recovered_and_removed(guidance):
    """Outputs with errors ``a v~ + b``, in channels of very unlike size."""
    draw = torch.Generator().manual_seed(guidance)
    v = torch.randn(2, 4, 8, 8, generator=draw, dtype=torch.float64) * torch.tensor([1.0, 10.0, 0.1, 3.0]).view(1, -1, 1, 1) + 2
    a = torch.tensor([0.3, -0.2, 0.05, 0.0], dtype=torch.float64).view(1, -1, 1, 1)
    b = torch.tensor([0.1, 5.0, -0.01, 0.0], dtype=torch.float64).view(1, -1, 1, 1)
    said = (v + b) / (1 - a)
    slope, offset = Line.of(said, said - v).fit()
    torch.testing.assert_close(torch.tensor(slope), a.flatten().float(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(torch.tensor(offset), b.flatten().float(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(Rectify((slope,), (offset,)).apply(None, Step(0), said), v, rtol=1e-9, atol=1e-9)
    scalar, shift = Line.of(said, said - v, by_channel=False).fit()
    assert len(scalar) == len(shift) == 1


def test_3_what_is_the_same_everywhere_is_all_offset():
    slope, offset = Line.of(torch.full((1, 2, 4, 4), 3.0), torch.full((1, 2, 4, 4), 0.5)).fit()
    assert slope == (0.0, 0.0)
    assert offset == pytest.approx((0.5, 0.5))


def test_4_no_difference_allowed_is_no_reuse_and_any_is_all_but_the_first():
    pipe = Pipe(sd3(), flow())
    assert omnicache.calibrate(pipe, [1], "ertacache", threshold=0.0, **CALL).options["schedule"] == "#" * T
    every = omnicache.calibrate(pipe, [1], "ertacache", threshold=math.inf, adjust="raw", **CALL)
    assert every.options["schedule"] == "#" + "." * (T - 1)
    assert every.options["phi"][0] is None and every.options["phi"][-1] is None  # the last step goes to the end
    assert all(0 <= p <= 1 for p in every.options["phi"][1:-1])


@pytest.mark.parametrize("phi", [(), (None, 0.5, 0.25, None, 0.8, 0.3, None, None)])
def test_5_the_drift_is_the_sum_of_the_errors_times_their_steps(phi):
    """In a linear field, of the cached run from the uncached one: errors on the true path, carried on by the field."""
    pipe, marks = Watched(Linear(), flow()), "#..#..#."
    pipe(num_inference_steps=T)
    true_x, true_v = pipe.xs, pipe.vs
    with omnicache.cache(pipe, "ertacache", schedule=marks, phi=phi) as run:
        end = pipe(num_inference_steps=T)
    assert run.computed == marks
    sigmas, drift = pipe.scheduler.sigmas.tolist(), torch.zeros_like(end)
    for i, taken in enumerate(lengths(sigmas, phi)):
        eps = pipe.vs[i] - pipe.model(pipe.xs[i], None)  # of the reused output, where the latents are
        more = taken - (sigmas[i] - sigmas[i + 1])  # of the way, than the uncached run goes
        drift = drift - taken * (eps + pipe.model(drift, None)) - more * true_v[i]
    torch.testing.assert_close(end - true_x[-1], drift, rtol=1e-4, atol=1e-4)
    assert drift.norm() > 0.01


def test_the_steps_that_change_least_are_reused_and_more_with_a_larger_threshold():
    pipe = Pipe(Mixture(), flow())
    schedules = [omnicache.calibrate(pipe, [1, 2, 3], "ertacache", threshold=t, **CALL).options["schedule"] for t in (0.15, 0.3)]
    few, many = (s.count(".") for s in schedules)
    assert 0 < few < many < T


def test_the_inputs_vote():
    """A step is reused if more than half of the replays reuse it."""
    pipe = Pipe(Mixture(), flow())
    inputs = [{"label": n, "generator": torch.Generator().manual_seed(n)} for n in (1, 2, 3)]
    alone = [omnicache.calibrate(pipe, [one], "ertacache", threshold=0.15, **CALL).options["schedule"] for one in inputs]
    together = omnicache.calibrate(pipe, inputs, "ertacache", threshold=0.15, **CALL)
    assert together.options["schedule"] == "".join(
        "." if s.count(".") >= 2 else "#" for s in map("".join, zip(*alone, strict=True))
    )


def test_rectification_brings_the_cached_run_nearer_to_the_uncached_one():
    pipe = Pipe(Mixture(), flow())
    call, new = {**CALL, "threshold": 0.25}, {"label": [7, 8], "num_inference_steps": T}
    plain, off = pipe(**new), []
    for rectify in ("none", "scalar", "channel"):
        plan = omnicache.calibrate(pipe, [1, 2, 3], "ertacache", rectify=rectify, **call)
        with omnicache.cache(pipe, plan) as run:
            off.append(float((pipe(**new) - plain).norm()))
        assert "." in run.computed
        assert Plan.from_json(plan.to_json()) == plan
    assert off[1] < 0.9 * off[0] and off[2] < 0.9 * off[0]


def test_a_replay_is_what_a_cached_run_does():
    """With guidance in one call: what calibration does at the sampler is what reuse in each guidance pass comes to."""
    pipe, marks = Pipe(sd3(), flow()), "#.##..#."
    replay = Replay(lambda step, change: marks[step] == ".")
    with omnicache.cache(pipe, Policy(Table("#" * T), Denoiser(), fix=replay)):
        wanted = pipe(num_inference_steps=T, guidance="batched")
    assert "".join(replay.marks) == marks
    for guidance in ("batched", "calls"):
        with omnicache.cache(pipe, "ertacache", schedule=marks):
            torch.testing.assert_close(pipe(num_inference_steps=T, guidance=guidance), wanted, rtol=1e-4, atol=1e-5)


def test_shares_are_one_less_the_error_beside_the_change_to_the_next_step():
    replay = Replay(lambda step, change: False)
    replay.moves.extend([0.0, 1.0, 4.0, 2.0, 0.0])
    replay.errors.update({1: (1.0, 0.5), 2: (3.0, 1.0), 3: (0.0, 0.0)})
    assert [replay.share(i, raw=True) for i in (1, 2, 3)] == [0.75, 0.0, 1.0]
    assert [replay.share(i, raw=False) for i in (1, 2, 3)] == [0.875, 0.5, 1.0]


def test_both_repairs_go_into_the_plan_in_turn():
    plan = omnicache.calibrate(Pipe(Mixture(), flow()), [1], "ertacache", threshold=0.25, adjust="rectified", **CALL)
    fix = plan.policies[0].fix
    assert isinstance(fix, InTurn) and isinstance(fix.a, Rectify) and isinstance(fix.b, StepSizes)
    assert Plan.from_json(plan.to_json()) == plan


def test_steps_are_only_adjusted_on_an_euler_flow_sampler():
    pipe = Pipe(dit(out_channels=4), ddim())
    with pytest.raises(OmniCacheError, match=r'DDIMScheduler makes others\. Leave the steps as they are \(adjust="none"\)'):
        omnicache.calibrate(pipe, [1], "ertacache", adjust="raw", **CALL)
    with pytest.raises(OmniCacheError, match="ertacache: it changes the sizes"):
        omnicache.enable(pipe, "ertacache", schedule="#.#.#", phi=(None, 0.5, None, 0.5, None))
    plan = omnicache.calibrate(pipe, [1], "ertacache", threshold=0.5, **CALL)  # increments are kept all the same
    with omnicache.cache(pipe, plan) as run:
        pipe(num_inference_steps=T)
    assert run.computed == plan.options["schedule"]
