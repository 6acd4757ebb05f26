"""The one clock: where a run stands, whatever scheduler tells it."""

import copy
import inspect
import itertools
import pickle

import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
    KDPM2DiscreteScheduler,
    PNDMScheduler,
)

import omnicache
from omnicache.runtime.clock import Clock, Tap

from ..methods.tiny import Curves, Pipe, ddim, dit, latte, text_unet

SCHEDULERS = {
    "ddim": lambda: ddim(),
    "heun": lambda: HeunDiscreteScheduler(),
    "dpm++": lambda: DPMSolverMultistepScheduler(),
    "dpm2": lambda: KDPM2DiscreteScheduler(),
    "flow": lambda: FlowMatchEulerDiscreteScheduler(),
    "pndm": lambda: PNDMScheduler(skip_prk_steps=True),
    "pndm with Runge-Kutta": lambda: PNDMScheduler(),
    "ancestral": lambda: EulerAncestralDiscreteScheduler(),
}
EVALUATIONS = {"heun": 19, "dpm2": 19, "pndm": 11, "pndm with Runge-Kutta": 19}


def watched(pipe, **call):
    """A computed run: its output and its records."""
    with omnicache.cache(pipe, "fora", interval=1) as run:
        torch.manual_seed(0)  # for schedulers that draw noise without being handed a generator
        out = pipe(**call)
        return out, run.trace.records, run.sessions[0]


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("guidance", ["none", "batched", "calls"])
def test_one_step_an_evaluation_from_noise_to_data(name, guidance):
    pipe = Pipe(dit(), SCHEDULERS[name]())
    torch.manual_seed(0)
    plain = pipe(guidance=guidance)
    out, records, session = watched(pipe, guidance=guidance)
    assert torch.equal(out, plain)
    evaluations, passes = EVALUATIONS.get(name, 10), 2 if guidance == "calls" else 1
    assert [r.step.index for r in records] == [i for i in range(evaluations) for _ in range(passes)]
    assert {r.step.total for r in records} == {evaluations}
    assert [r.step.branch for r in records] == list(range(passes)) * evaluations
    assert [r.step.time for r in records[::passes]] == pytest.approx(pipe.scheduler.timesteps.tolist())
    assert [r.step.is_last for r in records] == [False] * (evaluations - 1) * passes + [True] * passes
    assert session.bytes() == 0


def test_repeated_timesteps_are_two_steps():
    _, records, _ = watched(Pipe(dit(), SCHEDULERS["pndm"]()))
    times = [r.step.time for r in records]
    assert times[1] == times[2]
    assert [r.step.index for r in records[:4]] == [0, 1, 2, 3]


@pytest.mark.parametrize("name", ["ddim", "dpm++", "flow", "heun", "dpm2"])
def test_sigmas_fall_to_the_data(name):
    pipe = Pipe(dit(), SCHEDULERS[name]())
    _, records, _ = watched(pipe)
    sigmas = [r.step.sigma for r in records]
    assert all(a >= b for a, b in itertools.pairwise(sigmas))
    assert sigmas[0] > sigmas[-1]
    if name == "ddim":
        alphas = pipe.scheduler.alphas_cumprod[pipe.scheduler.timesteps]
        assert sigmas == pytest.approx((1 / alphas - 1).sqrt().tolist(), rel=1e-3)
    else:
        assert sigmas == pytest.approx(pipe.scheduler.sigmas[: len(sigmas)].tolist())


@pytest.mark.parametrize("name", [n for n in SCHEDULERS if "Runge" not in n])
@pytest.mark.parametrize("start", [3, 4])
def test_image_to_image_starts_in_the_middle(name, start):
    start += start % 2 if name == "dpm2" else 0  # its own evaluations in pairs
    pipe = Pipe(dit(), SCHEDULERS[name]())
    torch.manual_seed(0)
    plain = pipe(start=start)
    out, records, session = watched(pipe, start=start)
    assert torch.equal(out, plain)
    left = EVALUATIONS.get(name, 10) - start
    assert [r.step.index for r in records] == list(range(left))
    assert {r.step.total for r in records} == {left}
    assert records[-1].step.is_last
    assert records[0].step.time == pytest.approx(float(pipe.scheduler.timesteps[start]))
    assert session.bytes() == 0  # the last step came, and freed all


def test_image_to_image_that_starts_on_the_second_of_two_equal_times_stays_on_the_clock():
    """PNDM does not say where it begins, so the length is taken one too long; the steps are counted all the same."""
    pipe = Pipe(dit(), SCHEDULERS["pndm"]())
    plain = pipe(start=2)
    out, records, _ = watched(pipe, start=2)
    assert torch.equal(out, plain)
    assert [r.step.index for r in records] == list(range(9))
    assert {r.step.total for r in records} == {10}


def test_a_run_that_is_cut_short_never_has_a_last_step_and_the_next_begins_anew():
    pipe = Pipe(dit())
    with omnicache.cache(pipe, "fora", interval=3) as run:
        pipe(stop=7)
        assert run.computed == "#..#..#"
        assert not any(r.step.is_last for r in run.trace.records)
        assert run.sessions[0].bytes() > 0  # more might have come
        first = pipe()
        assert run.computed == "#..#..#..#"
    with omnicache.cache(pipe, "fora", interval=3):
        assert torch.equal(pipe(), first)


def test_a_model_that_is_given_thousandths_of_the_timesteps():
    pipe = Pipe(dit(), FlowMatchEulerDiscreteScheduler())
    pipe.evaluate = lambda x, t, more: pipe.model(x, timestep=(t / 1000).expand(len(x)), **more).sample
    _, records, _ = watched(pipe, start=4)
    assert [r.step.index for r in records] == list(range(6))
    assert {r.step.total for r in records} == {6}


# --- without a scheduler


def test_without_a_scheduler_the_timesteps_are_the_clock_and_a_rise_begins_a_run():
    model = Curves(lambda t: 1.0)
    x = torch.zeros(1, 4, 8, 8, dtype=torch.float64)
    with omnicache.cache(model, "fora", interval=3) as run:
        for t in (9.0, 8.0, 7.0, 6.0, 5.0):
            model(x, t)
        assert run.computed == "#..#."
        assert {r.step.total for r in run.trace.records} == {None}
        for t in (9.0, 8.0):
            model(x, t)
        assert run.computed == "#."


def test_without_a_scheduler_two_calls_at_one_time_are_two_branches():
    model = Curves(lambda t: 1.0)
    x = torch.zeros(1, 4, 8, 8, dtype=torch.float64)
    with omnicache.cache(model, "fora", interval=3) as run:
        for t in (9.0, 8.0, 7.0):
            model(x, t)
            model(x + 1, t)
        assert run.trace.branches() == [0, 1]
        assert run.trace.strip(1) == "#.."


def test_without_a_scheduler_a_new_shape_begins_a_run():
    model = Curves(lambda t: 1.0)
    with omnicache.cache(model, "fora", interval=5) as run:
        for size in (1, 1, 2, 2):
            model(torch.zeros(size, 4, 8, 8, dtype=torch.float64), 9.0)
        assert [(r.step.index, r.step.branch) for r in run.trace.records] == [(0, 0), (0, 1)]
        assert all(r.mark == "#" for r in run.trace.records)


# --- guidance passes and requests


def test_the_names_that_a_pipeline_gives_its_calls_are_the_branches_in_any_order():
    model = latte()
    pipe, latent = Pipe(model), torch.zeros(1, 4, 3, 8, 8)
    texts = {name: pipe.conditions(torch.tensor([n])) for n, name in enumerate(("uncond", "cond"))}

    def sampled(names):
        pipe.scheduler.set_timesteps(10)
        x = latent
        for t in pipe.scheduler.timesteps:
            out = {}
            for name in names:
                with model.cache_context(name), torch.no_grad():
                    out[name] = pipe.evaluate(x, t, texts[name])
            x = pipe.scheduler.step(out["uncond"] + 2 * (out["cond"] - out["uncond"]), t, x).prev_sample
        return x

    with omnicache.cache(pipe, "fora", interval=3) as run:
        one = sampled(("uncond", "cond"))
        assert run.trace.branches() == ["uncond", "cond"]
        two = sampled(("cond", "uncond"))
        assert run.trace.branches() == ["cond", "uncond"]
        assert {run.trace.strip(branch=name) for name in texts} == {"#..#..#..#"}
    assert torch.equal(one, two)
    assert "cache_context" not in vars(model)


def test_guidance_that_is_switched_off_late_leaves_the_branch_that_its_condition_tells():
    model = text_unet()
    scheduler = ddim()
    pipe = Pipe(model, scheduler)
    none, cond = pipe.conditions(torch.tensor([10])), pipe.conditions(torch.tensor([1]))
    with omnicache.cache(pipe, "deepcache", interval=20) as run, torch.no_grad():
        scheduler.set_timesteps(10)
        x = torch.zeros(1, 4, 8, 8)
        for i, t in enumerate(scheduler.timesteps):
            out = pipe.evaluate(x, t, none) if i < 6 else 0.0
            out = out + pipe.evaluate(x, t, cond)
            x = scheduler.step(out, t, x).prev_sample
        assert [r.step.branch for r in run.trace.records] == [0, 1] * 6 + [1] * 4
    assert run.trace.strip(1) == "#........."


def test_interleaved_requests_on_one_thread_keep_apart():
    model = Curves(lambda t: t)
    x = torch.zeros(1, 4, 8, 8, dtype=torch.float64)

    def outputs(interleaved):
        outs = {"a": [], "b": []}
        with omnicache.cache(model, "fora", interval=3) as run:
            calls = [(n, t) for t in (9.0, 8.0, 7.0, 6.0, 5.0) for n in "ab"]
            for name, t in calls if interleaved else sorted(calls, key=lambda c: c[0]):
                with run.request(name):
                    outs[name].append(model(x + (name == "b"), t))
        return torch.stack([torch.cat(outs["a"]), torch.cat(outs["b"])])

    together = outputs(True)
    assert torch.equal(together, outputs(False))
    assert torch.equal(together[0][1], together[0][0])  # modules held, the latent the same
    assert not torch.equal(together[0][3], together[0][2])


# --- the taps


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
@pytest.mark.parametrize("name", ["ddim", "heun", "flow", "dpm++"])
def test_copies_of_a_tapped_scheduler_are_plain_and_apart(name, copied):
    pipe = Pipe(dit(), SCHEDULERS[name]())
    plain = pipe()
    with omnicache.cache(pipe, "fora") as run:
        assert isinstance(pipe.scheduler.step, Tap)
        twin = copied(pipe.scheduler)
        assert not isinstance(twin.step, Tap)
        assert not isinstance(twin.set_timesteps, Tap)
        assert twin.step.__self__ is twin
        assert twin.step.__func__ is type(twin).step
        twin.set_timesteps(4)
        x = torch.zeros(1, 4, 8, 8)
        twin.step(x, twin.timesteps[0], x)
        assert getattr(pipe.scheduler, "_step_index", None) != 1
        assert pipe.scheduler.num_inference_steps == 10
        pipe()
        assert len(run.trace.records) == len(pipe.scheduler.timesteps)
    assert torch.equal(pipe(), plain)
    assert torch.equal(Pipe(pipe.model, twin)(), plain)


def test_a_copy_that_steps_in_the_middle_of_a_run_counts_nothing():
    pipe = Pipe(dit())
    with omnicache.cache(pipe, "fora", interval=3) as run:
        twin = copy.deepcopy(pipe.scheduler)
        twin.set_timesteps(7)
        x = torch.zeros(1, 4, 8, 8)
        hook = pipe.model.register_forward_hook(lambda *_: twin.step(x, twin.timesteps[0], x) and None)
        pipe()
        hook.remove()
    assert run.computed == "#..#..#..#"


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_signatures_that_pipelines_inspect_stay(name):
    pipe = Pipe(dit(), SCHEDULERS[name]())
    before = {m: inspect.signature(getattr(pipe.scheduler, m)) for m in ("step", "set_timesteps")}
    with omnicache.cache(pipe, "fora"):
        for method, signature in before.items():
            assert inspect.signature(getattr(pipe.scheduler, method)) == signature
            assert getattr(pipe.scheduler, method).__name__ == method
            assert getattr(pipe.scheduler, method).__doc__
    assert not {"step", "set_timesteps"} & set(vars(pipe.scheduler))


def test_a_scheduler_replaced_after_enable():
    pipe, heun = Pipe(dit()), HeunDiscreteScheduler()
    old = pipe.scheduler
    expected = {}
    for name, scheduler in (("old", old), ("heun", heun)):
        pipe.scheduler = scheduler
        with omnicache.cache(pipe, "fora", interval=3):
            expected[name] = pipe()
    pipe.scheduler = old
    run = omnicache.enable(pipe, "fora", interval=3)
    assert torch.equal(pipe(), expected["old"])
    pipe.scheduler = heun
    assert torch.equal(pipe(), expected["heun"])
    assert len(run.trace.records) == 19
    assert {r.step.total for r in run.trace.records} == {19}
    assert torch.equal(pipe(), expected["heun"])
    assert not {"step", "set_timesteps"} & set(vars(old)), "the old one is left as it was"
    omnicache.disable(pipe)
    assert not {"step", "set_timesteps"} & set(vars(heun))


@pytest.mark.parametrize("build", [dit, text_unet])
@pytest.mark.parametrize("guidance", ["none", "calls"])
@pytest.mark.parametrize(("stop", "grid"), [(None, "flow"), (1, "ddim"), (2, "flow"), (4, "ddim"), (5, "flow"), (5, "ddim")])
def test_two_pipelines_that_share_a_denoiser(build, guidance, stop, grid):
    """The second runs on its own scheduler: it is cached as well, and neither confuses the other, cut short or not."""
    model, method = build(), "fora" if build is dit else "deepcache"
    first, second = Pipe(model), Pipe(model, SCHEDULERS[grid]())
    expected = {}
    for pipe in (first, second):
        with omnicache.cache(pipe, method, interval=3):  # of ten steps, counting either way gives the same
            expected[pipe] = pipe(guidance=guidance)
    with omnicache.cache(first, method, interval=3) as run:
        for _ in range(2):
            first(guidance=guidance, stop=stop)
            out = second(guidance=guidance)
            assert run.computed == "#..#..#..#"
            assert len(run.trace.records) == 10 * len(run.trace.branches())
            torch.testing.assert_close(out, expected[second])
        torch.testing.assert_close(first(guidance=guidance), expected[first])


def test_two_denoisers_on_one_scheduler_share_its_clock():
    scheduler = ddim()
    a, b = Pipe(dit(), scheduler), Pipe(dit(seed=1), scheduler)
    run_a, run_b = omnicache.enable(a, "fora", interval=3), omnicache.enable(b, "fora", interval=2)
    assert [c for _, c in run_a.sessions[0].audience] == [c for _, c in run_b.sessions[0].audience]
    a()
    b()
    assert run_a.computed == "#..#..#..#"
    assert run_b.computed == "##.#.#.#.#"
    omnicache.disable(a)
    assert isinstance(scheduler.step, Tap)
    b()
    omnicache.disable(b)
    assert not {"step", "set_timesteps"} & set(vars(scheduler))


def test_timesteps_set_before_enabling_are_seen_also_the_second_time():
    model, scheduler = text_unet(), ddim()
    pipe = Pipe(model, scheduler)
    pipe.scheduler.set_timesteps(8)
    for _ in range(2):
        pipe.scheduler.set_timesteps(8)
        with omnicache.cache(pipe, "deepcache", interval=3) as run, torch.no_grad():
            x = torch.zeros(1, 4, 8, 8)
            for t in scheduler.timesteps:
                x = scheduler.step(pipe.evaluate(x, t, pipe.conditions(torch.tensor([1]))), t, x).prev_sample
            assert [r.step.total for r in run.trace.records] == [8] * 8
            assert run.computed == "#..#..#."


def test_a_clock_that_nobody_listens_to_is_forgotten():
    scheduler = ddim()
    pipe = Pipe(dit(), scheduler)
    with omnicache.cache(pipe, "fora"):
        assert scheduler in Clock._all
    assert scheduler not in Clock._all


def test_fewer_steps_asks_the_scheduler_for_fewer():
    pipe = Pipe(dit())
    with omnicache.cache(pipe, "fewer-steps", ratio=0.5) as run:
        halved = pipe(num_inference_steps=20)
    assert len(run.trace.records) == 10
    assert torch.equal(halved, pipe(num_inference_steps=10))
    assert len(pipe.scheduler.timesteps) == 10
    pipe(num_inference_steps=20)
    assert len(pipe.scheduler.timesteps) == 20


def test_times_are_found_among_the_timesteps():
    scheduler = ddim()
    clock = Clock(scheduler)
    scheduler.set_timesteps(10)
    clock._read()
    assert [clock.place(t) for t in (900.0, 0.5, 500.0, 0.2, 12345.0, None)] == [0, 4, 4, 7, 0, 0]


def test_a_bare_loop_whose_times_rise_is_one_run_from_its_third_step_on():
    model = tiny_rising_model()
    x = torch.randn(2, 8, 16)
    with torch.no_grad(), omnicache.cache(model, "fora", count="up", granularity="stack") as run:
        for t in range(20):
            model(x, torch.tensor(t / 20))
        # Two calls are needed to tell a rising run from runs that were given up after one step.
        assert run.computed == "#..#..#..#..#..#..#"[:19]
        for t in range(20, 0, -1):
            model(x, torch.tensor(t / 20))
        assert run.computed.startswith("#..#")


def tiny_rising_model() -> torch.nn.Module:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = torch.nn.ModuleList([torch.nn.Linear(16, 16) for _ in range(3)])

        def forward(self, hidden_states: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
            for block in self.blocks:
                hidden_states = block(hidden_states)
            return hidden_states * timestep

    return Model()
