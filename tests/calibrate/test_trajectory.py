"""How noise carries over: tests 6 and 7 of OmniCache-Trajectory's reference, and what a calibration says of itself."""

import itertools
import math

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import nn

import omnicache
from omnicache.calibrate import uncached
from omnicache.calibrate.record import Recorder, watched
from omnicache.calibrate.schedule import cheapest, most_reuses
from omnicache.calibrate.uncached import Uncached
from omnicache.errors import OmniCacheError
from omnicache.granularity import Stack
from omnicache.policy import Policy, Predictor
from omnicache.predictors import Hold, Residual
from omnicache.triggers import Every

from ..methods.tiny import Curves, Pipe, dit

DOUBLE = {"dtype": torch.float64}


def calibrate(pipe, inputs, **options):
    return omnicache.calibrate(pipe, inputs, "omnicache-trajectory", progress=False, **options)


def gammas(plan) -> dict[int, float]:
    """The number of every reused step."""
    return {i: g for i, g in enumerate(plan.options["gamma"]) if g is not None}


def ramp(t: float) -> float:
    return 2.0 - 0.003 * t


def linear() -> Pipe:
    """Module outputs linear in the step, and a linear read-out: noise of age ``a`` is ``a`` times that of age one."""
    return Pipe(Curves(ramp, gate=lambda t: 0.6))


# --- 6: the number that carries noise


@pytest.mark.parametrize("guidance", ["none", "calls"])
def test_6_what_is_left_after_the_fit_is_one_minus_the_squared_cosine(guidance):
    pipe, inputs = Pipe(dit()), [1, 2, 3]
    call = {"num_inference_steps": 12, "guidance": guidance}
    plan = calibrate(pipe, inputs, reuse=0.5, **call)
    marks, cosine = plan.options["schedule"], plan.measured["cosine"]
    full = [i for i, m in enumerate(marks) if m == "#"]
    ages = {i: i - max(f for f in full if f < i) for i in range(1, 12)}
    noise: dict[tuple, torch.Tensor] = {}
    for label in inputs:

        def look(step, truth, rehearsed, label=label):
            if rehearsed:
                noise[label, step.branch, step.index] = (rehearsed[0] - truth).double()

        with watched(
            pipe,
            Policy(Every(1), Stack(), Residual(Hold(3)), fix=Recorder(look, lambda s: (ages[s.index] - 1,) if s.index else ())),
        ):
            pipe(label, generator=torch.Generator().manual_seed(inputs.index(label)), **call)
    for i, g in gammas(plan).items():
        source = max(f for f in full if f < i)
        pairs = [(noise[label, b, i], noise[label, b, source]) for label, b, s in noise if s == i]
        assert len(pairs) == len(inputs) * (2 if guidance == "calls" else 1)
        left = sum(float((q - g * p).square().sum()) for q, p in pairs) / sum(float(q.square().sum()) for q, _ in pairs)
        assert left == pytest.approx(1 - cosine[i] ** 2, abs=1e-6)
        by_hand = sum(float((q * p).sum()) for q, p in pairs) / sum(float(p.square().sum()) for _, p in pairs)
        assert g == pytest.approx(by_hand, rel=1e-4)
        assert 0 < left < 1  # a real model: neither perfect nor useless


@pytest.mark.parametrize("gamma", ["aware", "literal", "rescaled"])
def test_6_constant_noise_gives_one(gamma):
    # Steps 1 and 2: the noise at the full step and at the reuse are both of age one, on a ramp they are the same.
    plan = calibrate(linear(), [1, 2], reuse=1 / 8, order="curvature", gamma=gamma, num_inference_steps=8, tail=5, **DOUBLE)
    assert plan.options["schedule"] == "##.#####"
    assert gammas(plan) == {2: pytest.approx(1.0, abs=1e-9)}
    assert plan.measured["cosine"][2] == pytest.approx(1.0, abs=1e-9)


def bent(t: float) -> float:
    """A ramp that falls half as fast after the second of eight steps (times 875, 750, ...)."""
    return ramp(t) if t >= 750 else ramp(750) + 0.5 * (ramp(t) - ramp(750))


@pytest.mark.parametrize("gamma", ["aware", "literal", "rescaled"])
def test_6_half_the_noise_at_the_reuse_gives_a_half(gamma):
    plan = calibrate(Pipe(Curves(bent)), [1], reuse=1 / 8, gamma=gamma, num_inference_steps=8, tail=5, **DOUBLE)
    assert gammas(plan) == {2: pytest.approx(0.5, abs=1e-9)}


def test_6_the_cosine_is_the_other_fit():
    plan = calibrate(Pipe(Curves(bent)), [1], reuse=1 / 8, fit="cosine", num_inference_steps=8, tail=5, **DOUBLE)
    assert gammas(plan) == {2: pytest.approx(1.0, abs=1e-9)}


# --- 7: age


ALTERNATING = dict(reuse=4, order="alternate", num_inference_steps=11, **DOUBLE)  # ###.#.#.#.#


def error(pipe, plan, steps: int) -> float:
    plain = pipe(7, num_inference_steps=steps, **DOUBLE)
    with omnicache.cache(pipe, plan) as run:
        out = pipe(7, num_inference_steps=steps, **DOUBLE)
    assert run.computed == plan.options["schedule"]
    return float((out - plain).norm() / plain.norm())


def test_7_noise_of_age_a_is_a_times_that_of_age_one():
    pipe, seen = linear(), []
    recorder = Recorder(lambda step, truth, r: seen.append([q - truth for q in r]), lambda step: tuple(range(min(step.index, 3))))
    with watched(pipe, Policy(Every(1), Stack(), Residual(Hold(3)), fix=recorder)):
        pipe(num_inference_steps=8, **DOUBLE)
    for one, two, three in seen[3:]:
        torch.testing.assert_close(two, 2 * one, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(three, 3 * one, rtol=1e-9, atol=1e-9)
        assert float(one.norm()) > 1e-2


def test_7_the_alternating_schedule_calibrates_to_a_half_and_is_then_exact():
    pipe = linear()
    plan = calibrate(pipe, [1, 2], **ALTERNATING)
    assert plan.options["schedule"] == "###.#.#.#.#"
    # The first reuse follows full steps in a row, so its noise and the one measured are both of age one.
    assert gammas(plan) == {3: pytest.approx(1.0, abs=1e-8), **{i: pytest.approx(0.5, abs=1e-8) for i in (5, 7, 9)}}
    assert error(pipe, plan, 11) < 1e-9


def test_7_two_reuses_in_a_row_calibrate_to_a_third_and_two_thirds_and_are_exact():
    pipe = linear()
    plan = calibrate(pipe, [1], reuse=6, order="curvature", num_inference_steps=11, **DOUBLE)
    assert plan.options["schedule"] == "##..#..#..#"  # the only one with six
    third = {i: pytest.approx(n / 3, abs=1e-8) for i, n in ((5, 1), (6, 2), (8, 1), (9, 2))}
    assert gammas(plan) == {2: pytest.approx(1.0, abs=1e-8), 3: pytest.approx(2.0, abs=1e-8), **third}
    assert error(pipe, plan, 11) < 1e-9


def test_7_rescaled_is_exact_here_and_literal_corrects_twice_too_much():
    pipe = linear()
    plans = {gamma: calibrate(pipe, [1], gamma=gamma, **ALTERNATING) for gamma in ("rescaled", "literal")}
    assert gammas(plans["literal"]) == {i: pytest.approx(1.0, abs=1e-8) for i in (3, 5, 7, 9)}
    assert error(pipe, plans["rescaled"], 11) < 1e-9
    none = calibrate(pipe, [1], correct=False, **ALTERNATING)
    literal, uncorrected = error(pipe, plans["literal"], 11), error(pipe, none, 11)
    assert literal > 1e-4
    assert 0.2 < literal / uncorrected < 2


def test_7_the_filter_takes_from_the_correction():
    pipe, errors = linear(), []
    for cutoff in (None, 0.25):
        plan = calibrate(pipe, [1], cutoff=cutoff, **ALTERNATING)
        assert plan.policies[0].fix.cutoff == plan.options["cutoff"] == cutoff
        assert plan.policies[0].fix.switch == 6
        errors.append(error(pipe, plan, 11))
    assert errors[0] < 1e-9 < errors[1]


# --- the calibration as a whole


@pytest.mark.parametrize("order", ["curvature", "greedy", "error", "alternate"])
@pytest.mark.parametrize("granularity", ["stack", "module"])
def test_every_order_obeys_the_rule_and_its_plan_runs_as_it_says(order, granularity):
    pipe = Pipe(dit())
    plan = calibrate(pipe, [1, 2], reuse=0.4, order=order, granularity=granularity, num_inference_steps=10)
    marks = plan.options["schedule"]
    assert marks.count(".") == plan.measured["reuses"] == 4
    assert marks.startswith("##")
    assert marks.endswith("#")
    assert "..." not in marks
    with omnicache.cache(pipe, plan) as run:
        pipe()
    assert run.computed == marks


def test_the_chosen_steps_are_the_straightest():
    pipe = Pipe(dit())
    plan = calibrate(pipe, [1, 2, 3], reuse=3, order="curvature", num_inference_steps=12)
    bend, marks = plan.measured["curvature"], plan.options["schedule"]
    price = sum(c for c, m in zip(bend, marks, strict=True) if m == ".")
    free = [c for c in itertools.combinations(range(2, 11), 3) if c[2] - c[0] > 2]
    assert price == pytest.approx(min(sum(bend[i] for i in c) for c in free))


def test_error_order_avoids_the_step_whose_reuse_adds_most_noise():
    jump = Pipe(Curves(lambda t: 0.0001 * t + (1.0 if t > 450 else 1.5)))  # nearly flat, but for one step between 500 and 400
    plan = calibrate(jump, [1], reuse=4, order="error", num_inference_steps=10, **DOUBLE)
    noise = plan.measured["noise"]
    assert noise[5] == max(noise) > 10 * noise[4] > 0
    assert plan.options["schedule"][5] == "#"


def test_the_damage_of_two_reuses_in_a_row_is_that_of_parallel_errors():
    found = Uncached(Pipe(dit()), [1, 2], {"num_inference_steps": 10}, progress=False)
    growth, (first, second) = found.growth(probes=1), found.damage(probes=1)
    for i in range(2, 10):
        alone, after = found.norm(1, i - 1) * growth[i - 1], found.norm(2, i) * growth[i]
        assert first[i - 1] == pytest.approx(alone**2)
        assert first[i - 1] + second[i] == pytest.approx((alone + after) ** 2)
    assert first[0] == second[0] == second[1] == math.inf


def test_a_model_that_never_changes_can_be_calibrated():
    plan = calibrate(Pipe(Curves(lambda t: 1.0)), [1], reuse=4, order="error", num_inference_steps=10, **DOUBLE)
    assert plan.options["schedule"].count(".") == 4


def test_it_changes_nothing_that_stays():
    pipe = Pipe(dit())
    plain = pipe()
    calibrate(pipe, [1], num_inference_steps=8)
    assert torch.equal(pipe(), plain)
    assert not {"step", "set_timesteps"} & set(vars(pipe.scheduler))


def test_the_plan_is_bound_to_model_and_step_count_and_survives_a_file(tmp_path):
    pipe = Pipe(dit())
    plan = calibrate(pipe, [1, 2], reuse=0.3, num_inference_steps=10)
    assert plan.made_for["model"] == "DiTTransformer2DModel"
    assert plan.made_for["num_inference_steps"] == 10
    assert omnicache.Plan.load(plan.save(tmp_path / "plan.json")) == plan
    with pytest.raises(OmniCacheError, match="made for DiTTransformer2DModel"), omnicache.cache(Pipe(dit(layers=2)), plan):
        pass


def test_the_paths_of_different_inputs_are_compared():
    plan = calibrate(Pipe(dit()), [1, 2, 3], num_inference_steps=8)
    table = plan.measured["similarity"]
    assert len(table) == 3
    assert all(table[i][i] == pytest.approx(1.0) for i in range(3))
    assert len(plan.measured["points"]) == 3
    assert len(plan.measured["points"][0]) == 9


@pytest.mark.parametrize("steps", [10, 16])
def test_more_than_the_rule_allows_is_refused_with_the_most_that_can(steps):
    most = most_reuses(steps)
    with pytest.raises(OmniCacheError, match=f"{most} can .*Ask for reuse=") as said:
        calibrate(Pipe(dit()), [1], reuse=most + 1, num_inference_steps=steps)
    asked = float(str(said.value).rsplit("reuse=", 1)[1].split(" ")[0])
    plan = calibrate(Pipe(dit()), [1], reuse=asked, order="curvature", num_inference_steps=steps)  # what it says to type works
    assert plan.options["schedule"].count(".") == most


def test_the_switch_where_signal_meets_noise():
    pipe = Pipe(dit())
    plan = calibrate(pipe, [1], switch="snr", num_inference_steps=10)
    pipe.scheduler.set_timesteps(10)
    noise = [math.sqrt(1 / a - 1) for a in pipe.scheduler.alphas_cumprod[pipe.scheduler.timesteps].tolist()]
    assert plan.options["switch"] == next(i for i, n in enumerate(noise) if n <= 1)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_the_switch_of_a_flow_scheduler_is_where_half_is_noise(shift):
    pipe = Pipe(dit(), FlowMatchEulerDiscreteScheduler(shift=shift))
    plan = calibrate(pipe, [1], switch="snr", num_inference_steps=10)
    pipe.scheduler.set_timesteps(10)
    assert plan.options["switch"] == next(i for i, s in enumerate(pipe.scheduler.sigmas.tolist()) if s <= 0.5)


class Halving(nn.Module):
    """A block that hands on every other token, so that it adds nothing to its input that could be kept."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(1))

    def forward(self, hidden_states):
        return hidden_states[:, ::2] * self.factor


class Shrinking(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([Halving(), Halving()])

    def forward(self, hidden_states, timestep):
        inner = hidden_states
        for block in self.blocks:
            inner = block(inner)
        return (hidden_states + inner.mean()) * timestep.max() / 1000


class Never(Predictor):
    """Keeps nothing."""

    def learn(self, history, step, x, y):
        return ()


@pytest.mark.parametrize("order", ["error", "curvature"])
def test_a_model_of_which_nothing_can_be_kept_is_refused(order, monkeypatch):
    monkeypatch.setattr(uncached, "Residual", lambda inner: Never())
    with pytest.raises(OmniCacheError, match=r"Shrinking cannot be calibrated, because nothing of it could be reused"):
        calibrate(Pipe(Shrinking()), [1], order=order, num_inference_steps=10)


def test_a_schedule_of_steps_without_a_kept_value_is_refused():
    price = [math.inf] * 10
    with pytest.raises(OmniCacheError, match="No schedule with 3 of 10 steps reused was found"):
        cheapest(price, 3)
