"""The planner of our own: exact where the model is linear, shortest among all ways, and better than what it stands on."""

import itertools
import math
import sys

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
    UniPCMultistepScheduler,
)
from torch import nn

import omnicache
from omnicache.calibrate.optimal import Course
from omnicache.calibrate.steps import tape
from omnicache.calibrate.steps.fit import regress
from omnicache.calibrate.steps.shortest import alone, jumps, shortest, weighed
from omnicache.calibrate.steps.tape import Tape, record
from omnicache.correctors import Multistep
from omnicache.errors import OmniCacheError
from omnicache.plan import Plan
from omnicache.policy import Sampling
from omnicache.runtime.step import Step

from .test_ertacache import Mixture
from .tiny import Pipe, counted, dit, sd3, text_unet

T = 12
NAME = "omnicache-optimal"


def calibrate(pipe, inputs=(1, 2, 3), steps=T, **options):
    return omnicache.calibrate(pipe, list(inputs), NAME, progress=False, num_inference_steps=steps, **options)


def flow():
    return FlowMatchEulerDiscreteScheduler(shift=2.0)


def mean_error(pipe, plan, labels=(7, 8, 9), steps=T, **call):
    """Of labels that were not calibrated on, relative."""
    errors = []
    for label in labels:
        plain = pipe(label, num_inference_steps=steps, **call)
        with omnicache.cache(pipe, plan):
            errors.append(float((pipe(label, num_inference_steps=steps, **call) - plain).norm() / plain.norm()))
    return sum(errors) / len(errors)


class Modes(nn.Module):
    """``v = A x`` with as many eigenvalues as given, whatever the time."""

    def __init__(self, *values):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(1, 1)) for _ in range(2))
        turn, _ = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(0)))
        spread = torch.tensor([values[i % len(values)] for i in range(4)])
        self.a = turn @ torch.diag(spread) @ turn.T

    def forward(self, hidden_states, timestep):
        return torch.einsum("dc,bchw->bdhw", self.a, hidden_states)


# --- exactness: what the last computed steps span


SPANNED = [((0.7,), 1, True), ((0.7, -0.4), 1, True), ((0.7, -0.4, 1.2), 1, False), ((0.7, -0.4, 1.2), 2, True)]


@pytest.mark.parametrize(("values", "history", "exact"), [*SPANNED, ((0.7, -0.4, 1.2, 0.1), 2, False)])
def test_a_linear_model_is_followed_exactly_as_far_as_latents_and_outputs_span_it(values, history, exact):
    """A latent and its output tell two modes apart, those of two steps in a row three: the second latent follows from the first
    two. Where modes are more, numbers fitted to them all remain."""
    pipe = Pipe(Modes(*values), flow())
    course = Course(pipe, [1, 2], {"num_inference_steps": T}, progress=False)
    fitted = course.fitted("##" + "." * (T - 2), history)
    error = course.error(fitted)
    assert (error < 1e-3) is exact, error


def test_what_the_calibration_expects_is_what_a_run_of_the_plan_does():
    pipe = Pipe(Mixture(), flow())
    plan = calibrate(pipe, reuse=0.6)
    for i, label in enumerate((1, 2, 3)):
        plain = pipe(label, num_inference_steps=T, generator=torch.Generator().manual_seed(i))
        with omnicache.cache(pipe, plan) as run:
            made = pipe(label, num_inference_steps=T, generator=torch.Generator().manual_seed(i))
        assert run.computed == plan.measured["schedule"]
        if i == 0:
            errors = []
        errors.append(float((made - plain).square().mean() / plain.square().mean()))
    assert math.exp(0.5 * sum(map(math.log, errors)) / 3) == pytest.approx(plan.measured["error"], rel=1e-2)


# --- the shortest path


def brute(cost, computed):
    n = cost.shape[0]
    best = (math.inf, "")
    for rest in itertools.combinations(range(1, n), computed - 1):
        path = (0, *rest, n)
        total, before = 0.0, 0
        for here, there in itertools.pairwise(path):
            total += float(cost[before, here, there])
            before = here
        best = min(best, (total, "".join("#" if i in path else "." for i in range(n))))
    return best[1]


def lengths(n, seed):
    """Of ways from two computed steps to a third, at random; infinite where the third is not the last of them."""
    draw = torch.rand(n, n, n + 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    h, i, k = torch.meshgrid(torch.arange(n), torch.arange(n), torch.arange(n + 1), indexing="ij")
    return draw.where((h <= i) & (i < k), math.inf)


@pytest.mark.parametrize("seed", range(4))
def test_no_other_steps_are_shorter(seed):
    n = 8
    cost = lengths(n, seed)
    for computed in range(1, n + 1):
        assert shortest(cost, computed) == brute(cost, computed)


@pytest.mark.parametrize("seed", range(4))
def test_a_path_is_the_sum_of_what_the_ends_of_its_stretches_cost_alone(seed):
    n = 8
    cost = lengths(n, seed)
    for i in range(n):
        cost[:, i, i + 1] = 0.0  # as of a step that was computed
    for computed in range(1, n + 1):
        marks = shortest(cost, computed)
        each = alone(cost, marks)
        at = [i for i, mark in enumerate(marks) if mark == "#"] + [n]
        ways = [float(cost[at[max(j - 1, 0)], at[j], at[j + 1]]) for j in range(computed)]
        ends = [each[k - 1] for k in at[1:]]
        assert ends == ways and all((error == 0) for error, mark in zip(each, marks, strict=True) if mark == "#")


def test_a_plan_tells_what_each_reuse_was_to_cost():
    plan = calibrate(Pipe(Mixture(), flow()), reuse=0.5)
    left, marks = plan.measured["left"], plan.measured["schedule"]
    assert len(left) == T and all((error > 0) == (mark == ".") for error, mark in zip(left, marks, strict=True))
    assert calibrate(Pipe(Mixture(), flow()), reuse=0).measured["left"] == (0.0,) * T


def test_a_way_is_as_long_as_the_error_that_least_squares_leave():
    pipe = Pipe(Mixture(), flow())
    seen = record(pipe, [1, 2], {"num_inference_steps": 6}, progress=False)
    cost = jumps(seen)
    for h, i, k in ((0, 1, 4), (1, 3, 6), (2, 2, 5)):
        known = [seen.latents[i], seen.outputs[i]] + ([seen.latents[h], seen.outputs[h]] if h < i else [])
        made = sum(w * t for w, t in zip(regress(known, seen.latents[k]), known, strict=True))
        assert float(cost[h, i, k]) == pytest.approx(float((made - seen.latents[k]).square().mean()), rel=1e-2, abs=1e-6)
    assert float(cost[1, 2, 3]) == 0.0
    assert torch.isinf(cost[3, 2, 5]) and torch.isinf(cost[1, 4, 4])


def test_a_long_run_is_planned_by_every_second_or_third_step(monkeypatch):
    monkeypatch.setattr(sys.modules[shortest.__module__], "MOST", 4)
    seen = record(Pipe(Mixture(), flow()), [1], {"num_inference_steps": 10}, progress=False)
    cost = jumps(seen)
    assert cost.shape == (4, 4, 11), "not a cube of all steps"
    marks = shortest(cost, 3)
    assert len(marks) == 10 and marks.count("#") == 3 and all(i % 3 == 0 for i, m in enumerate(marks) if m == "#")


def test_growth_weighs_the_ways_by_where_they_end():
    cost = torch.ones(2, 2, 3, dtype=torch.float64)
    assert weighed(cost, [1.0, 2.0, 3.0], 0.5)[0, 0].tolist() == pytest.approx([1.0, 2.0, 3.0])
    assert weighed(cost, [1.0, 2.0, 3.0], 1.0)[0, 0].tolist() == pytest.approx([1.0, 4.0, 9.0])


# --- schedulers

SCHEDULERS = {
    "ddim": lambda: DDIMScheduler(clip_sample=False, prediction_type="v_prediction", timestep_spacing="trailing"),
    "flow": flow,
    "euler": lambda: EulerDiscreteScheduler(prediction_type="v_prediction"),
    "heun": lambda: HeunDiscreteScheduler(prediction_type="v_prediction"),
    "dpm++2m": lambda: DPMSolverMultistepScheduler(prediction_type="v_prediction"),
    "dpm++3m": lambda: DPMSolverMultistepScheduler(prediction_type="v_prediction", solver_order=3),
    "unipc": lambda: UniPCMultistepScheduler(prediction_type="v_prediction"),
    "ancestral": lambda: EulerAncestralDiscreteScheduler(prediction_type="v_prediction"),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_solver_goes_where_the_pipeline_went(name):
    seen = record(Pipe(Modes(0.7, -0.4, 1.2, 0.1), SCHEDULERS[name]()), [1, 2], {"num_inference_steps": 8}, progress=False)
    solver, twin = seen.solver.start(), seen.solver.start()
    for i in range(seen.steps):
        x, out = seen.latents[i], seen.outputs[i]
        here, length = solver.look(x, out)
        after = solver.step(x, out)
        assert torch.equal(here, after), "looking is no step, and draws the same noise"
        assert torch.equal(after, twin.step(x, out))
        if name != "ancestral":
            torch.testing.assert_close(after, seen.latents[i + 1], rtol=1e-4, atol=1e-4)
        assert length != 0 or i == seen.steps - 1


@pytest.mark.parametrize("name", SCHEDULERS)
def test_any_scheduler_is_led_back_to_where_its_uncached_run_went(name):
    """Better than holding the output at the same steps, on labels that were not fitted on. Noise that a sampler adds between
    computed steps is not known at the last of them."""
    pipe = Pipe(Modes(0.7, -0.4, 1.2, 0.1), SCHEDULERS[name]())
    plan = calibrate(pipe, reuse=0.5)
    marks = plan.measured["schedule"]
    held = Plan("held", tuple(p.__class__(p.when, p.where) for p in plan.policies))
    with omnicache.cache(pipe, plan) as run:
        pipe(4, num_inference_steps=T)
    assert run.computed == marks
    assert mean_error(pipe, plan) < (0.7 if name == "ancestral" else 0.5) * mean_error(pipe, held)


# --- plans


@pytest.mark.parametrize("guidance", ["none", "batched", "calls"])
@pytest.mark.parametrize("model", [dit, sd3, text_unet])
def test_modules_run_as_often_as_the_schedule_says(model, guidance):
    pipe = Pipe(model(), flow())
    plan = calibrate(pipe, reuse=0.7, guidance=guidance)
    assert plan.measured["reuses"] == round(0.7 * T)
    module = next(m for m in pipe.model.modules() if type(m).__name__ in ("FeedForward", "ResnetBlock2D"))
    with omnicache.cache(pipe, plan) as run, counted(module) as calls:
        pipe(5, num_inference_steps=T, guidance=guidance)
    computed = plan.measured["schedule"].count("#")
    assert max(calls.values()) == computed * (2 if guidance == "calls" else 1)
    assert run.cache_bytes > 0


def test_the_same_is_found_again_and_a_file_keeps_it(tmp_path):
    pipe = Pipe(dit(), flow())
    one, other = calibrate(pipe, reuse=0.6), calibrate(pipe, reuse=0.6)
    assert one == other
    one.save(tmp_path / "a.plan.json")
    assert Plan.load(tmp_path / "a.plan.json") == one
    with omnicache.cache(pipe, one):
        made = pipe(5, num_inference_steps=T)
    with omnicache.cache(pipe, tmp_path / "a.plan.json"):
        assert torch.equal(pipe(5, num_inference_steps=T), made)


def test_calibrating_leaves_the_pipeline_as_it_was():
    pipe = Pipe(dit(), flow())
    scheduler, before = pipe.scheduler, set(vars(pipe.scheduler))
    plain = pipe(3, num_inference_steps=T)
    calibrate(pipe, reuse=0.6)
    assert pipe.scheduler is scheduler and set(vars(scheduler)) - before <= {"_step_index", "num_inference_steps", "timesteps"}
    assert torch.equal(pipe(3, num_inference_steps=T), plain)
    assert "_compiled_call_impl" not in vars(pipe.model) or pipe.model._compiled_call_impl is None


def test_a_plan_inside_is_fitted_along_and_returned_together():
    pipe = Pipe(sd3(), flow())
    inside = omnicache.methods()["tomesd"].plan(ratio=0.4)
    alone, both = calibrate(pipe, reuse=0.5), calibrate(pipe, reuse=0.5, inside=inside)
    assert both.method == "omnicache-optimal+tomesd"
    assert both.policies[1:] == inside.policies
    assert both.options["omnicache-optimal"]["weights"] != alone.options["weights"]


def test_every_step_computed_is_no_cache_at_all():
    pipe = Pipe(dit(), flow())
    plain = pipe(3, num_inference_steps=T)
    with omnicache.cache(pipe, calibrate(pipe, reuse=0)) as run:
        assert torch.equal(pipe(3, num_inference_steps=T), plain)
    assert run.computed == "#" * T and run.cache_bytes == 0


# --- the corrector


def test_it_hands_on_what_was_held_where_something_was_lost():
    """A history that is shorter than the numbers, or a step that was computed after all."""
    fix, x = Multistep((None, (0.0, 2.0, 0.0))), torch.ones(1, 1, 2, 2)
    given = Sampling(Step(1, 2), 5 * x, x, reused=True)
    assert torch.equal(fix.sample((), given)[0], 5 * x)
    _, _, known = fix.sample((), Sampling(Step(0, 2), 3 * x, x))
    assert torch.equal(fix.sample(known, given)[0], 6 * x)
    assert torch.equal(fix.sample(known, Sampling(Step(1, 2), 5 * x, x, reused=False))[0], 5 * x)


def test_nothing_is_kept_after_the_last_reused_step():
    fix, x = Multistep((None, (0.0, 1.0, 0.0), None)), torch.ones(1, 1, 2, 2)
    known = fix.sample((), Sampling(Step(0, 3), x, x))[2]
    assert len(known) == 1
    assert fix.sample(known, Sampling(Step(2, 3), x, x))[2] == ()


def test_the_type_of_the_output_is_kept_and_the_sum_is_taken_in_float32():
    fix = Multistep((None, (1.0, 30.0, -30.0)))
    draw = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    x, out = draw.half(), (draw + 0.001).half()
    known = fix.sample((), Sampling(Step(0, 2), out, x))[2]
    made = fix.sample(known, Sampling(Step(1, 2), out, x, reused=True))[0]
    assert made.dtype == torch.float16
    torch.testing.assert_close(made, (x.float() + 30 * (out.float() - x.float())).half(), rtol=0, atol=0)


# --- what is refused


def test_impossible_budgets_and_misfits_are_refused_with_a_sentence():
    pipe = Pipe(dit(), flow())
    with pytest.raises(OmniCacheError, match=r"12 of 12 steps cannot be reused: the first is computed. Ask for reuse=0.91"):
        calibrate(pipe, reuse=1.0)
    with pytest.raises(OmniCacheError, match="needs a calibrated schedule"):
        omnicache.cache(pipe, NAME)
    with pytest.raises(OmniCacheError, match="2 entries do not fit a schedule of 3 steps"):
        omnicache.methods()[NAME].plan(schedule="#..", weights=(None, None))
    with pytest.raises(OmniCacheError, match="one number for the latents now and two for each"):
        Multistep((None, (1.0, 2.0)))
    with pytest.raises(OmniCacheError, match="different sizes"):
        record(pipe, [1, {"label": 1, "shape": (4, 4, 4)}], {"num_inference_steps": 4}, progress=False)


def test_a_sampler_that_is_given_something_else_is_refused():
    class Odd(DDIMScheduler):
        def step(self, model_output, timestep, sample, **kwargs):
            return super().step(model_output[:, :4], timestep, sample, **kwargs)

    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(1, 1)) for _ in range(2))

        def forward(self, hidden_states, timestep):
            return torch.cat([hidden_states, hidden_states], 1)

    with pytest.raises(OmniCacheError, match=r"Odd.step is not given a model's output of the shape of the latents"):
        calibrate(Pipe(Wide(), Odd()))


def test_large_latents_are_looked_at_in_part(monkeypatch):
    monkeypatch.setattr(tape, "MOST", 50)
    pipe = Pipe(Mixture(), flow())
    seen = record(pipe, [1], {"num_inference_steps": 4}, progress=False)
    assert isinstance(seen, Tape) and seen.latents.shape == (5, 1, 50) and seen.outputs.shape == (4, 1, 50)
    assert mean_error(pipe, calibrate(pipe, reuse=0.5)) < 0.05


def test_a_run_of_another_length_is_computed_and_says_so():
    pipe = Pipe(dit(), flow())
    plan = calibrate(pipe, reuse=0.5)
    with omnicache.cache(pipe, plan) as run:
        pipe(5, num_inference_steps=T - 2)
    assert run.computed == "#" * (T - 2) and "steps" in str(run)
