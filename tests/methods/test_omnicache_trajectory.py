"""OmniCache-Trajectory (arXiv 2508.16212): its reference's tests 4, 5, 9, 10 and 11, which need a sampler.

1 and 2 (geometry), 3 (schedule), 6 and 7 (noise carried) are in ``tests/calibrate``, 8 (filter) in ``tests/axes``.
"""

from dataclasses import dataclass, field

import pytest
import torch

import omnicache
from omnicache.calibrate.record import Recorder, watched
from omnicache.calibrate.schedule import cheapest
from omnicache.correctors import NoiseCorrection
from omnicache.granularity import MLP, Attention, Stack
from omnicache.methods.omnicache_trajectory import omnicache_trajectory
from omnicache.policy import Policy
from omnicache.predictors import Hold, Residual
from omnicache.triggers import Every, Table

from .tiny import Curves, Pipe, counted, dit, sd3

MARKS = "##.##..#.#"
GAMMA = tuple(0.6 if m == "." else None for m in MARKS)


def policy_at(granularity: str, keep: int = 1):
    return (Stack(), Residual(Hold(keep))) if granularity == "stack" else (Attention() | MLP(), Hold(keep))


# --- 4: identity


@pytest.mark.parametrize("granularity", ["stack", "module"])
@pytest.mark.parametrize("guidance", ["none", "batched", "calls"])
def test_4_no_reuse_is_the_uncached_sampler_to_the_bit(granularity, guidance):
    pipe = Pipe(dit())
    plain = pipe(guidance=guidance)
    plan = omnicache_trajectory(schedule="#" * 10, gamma=(0.5,) * 10, granularity=granularity)
    with omnicache.cache(pipe, plan) as run:
        assert torch.equal(pipe(guidance=guidance), plain)
    assert run.computed == "#" * 10


@pytest.mark.parametrize("granularity", ["stack", "module"])
def test_4_carrying_nothing_is_plain_reuse_to_the_bit(granularity):
    pipe, outs = Pipe(dit()), []
    where, how = policy_at(granularity)
    for fix in (None, NoiseCorrection((0.0,) * 10), NoiseCorrection((None,) * 10), NoiseCorrection((-0.3,) * 10)):
        with omnicache.cache(pipe, Policy(Table(MARKS), where, how, fix=fix)) as run:
            outs.append(pipe())
        assert run.computed == MARKS
        assert sum(r.rehearsals for r in run.trace.records) == 0
    assert all(torch.equal(outs[0], out) for out in outs)
    with omnicache.cache(pipe, omnicache_trajectory(schedule=MARKS, gamma=GAMMA, correct=False, granularity=granularity)):
        assert torch.equal(pipe(), outs[0])
    with omnicache.cache(pipe, omnicache_trajectory(schedule=MARKS, gamma=GAMMA, granularity=granularity)):
        assert not torch.equal(pipe(), outs[0])


# --- 5: oracle


@dataclass(frozen=True, eq=False)
class Oracle(NoiseCorrection):
    """Subtracts the true noise of each reuse step, measured on the uncached path."""

    true: dict = field(default_factory=dict)
    sign: float = 1.0

    def apply(self, state, step, estimate):
        return super().apply(self.sign * self.true[step.index, step.branch], step, estimate)


@pytest.mark.parametrize("granularity", ["stack", "module"])
@pytest.mark.parametrize("guidance", ["none", "batched", "calls"])
def test_5_the_true_noise_subtracted_makes_every_reuse_step_exact(granularity, guidance):
    pipe = Pipe(dit())
    plain = pipe(guidance=guidance)
    full = [i for i, m in enumerate(MARKS) if m == "#"]
    age = {i: i - max(f for f in full if f < i) for i, m in enumerate(MARKS) if m == "."}
    noise = {}

    def look(step, truth, rehearsed):
        if rehearsed:
            noise[step.index, step.branch] = rehearsed[0] - truth

    recorder = Recorder(look, lambda step: (age[step.index] - 1,) if step.index in age else ())
    where, how = policy_at(granularity, keep=3)
    with watched(pipe, Policy(Every(1), where, how, fix=recorder)):
        assert torch.equal(pipe(guidance=guidance), plain)
    assert {i for i, _ in noise} == set(age)

    where, how = policy_at(granularity)
    errors = []
    for fix in (Oracle((1.0,) * 10, cutoff=None, true=noise), None, Oracle((1.0,) * 10, cutoff=None, true=noise, sign=-1.0)):
        with omnicache.cache(pipe, Policy(Table(MARKS), where, how, fix=fix)) as run:
            errors.append(float((pipe(guidance=guidance) - plain).norm() / plain.norm()))
        assert run.computed == MARKS
    assert errors[0] < 1e-6
    assert errors[1] > 3e-4
    assert errors[2] > 3e-4


# --- 9: order


@dataclass(frozen=True, eq=False)
class Watcher(NoiseCorrection):
    """Remembers how large the measured noise was."""

    norms: list = field(default_factory=list)

    def learn(self, state, step, truth, rehearsed):
        q = super().learn(state, step, truth, rehearsed)
        self.norms.append(None if q is None else float(q.norm()))
        return q


def test_9_the_cached_pass_runs_before_the_refresh():
    pipe, fix = Pipe(dit()), Watcher(GAMMA)
    with omnicache.cache(pipe, Policy(Table(MARKS), Stack(), Residual(Hold()), fix=fix)) as run:
        pipe()
    measured = [r.step.index for r in run.trace.records if r.rehearsals]
    assert measured == [1, 4, 7]  # the last full step before each stretch of reuse
    assert [n is not None and n > 1e-3 for n in fix.norms] == [False, True, False, True, True, False]


@pytest.mark.parametrize("granularity", ["stack", "module"])
def test_9_after_the_refresh_it_would_measure_nothing(granularity):
    model = Curves(lambda t: 1.0)  # two steps of a model blind to time are a pass, and a cached pass after its refresh
    x = torch.randn(1, 4, 8, 8, dtype=torch.float64)
    where, how = policy_at(granularity)
    with omnicache.cache(model, Policy(Table("#."), where, how)) as run:
        refreshed, rehearsed = model(x, 9.0), model(x, 8.0)
        assert run.computed == "#."
    assert float((rehearsed - refreshed).norm()) < (1e-14 if granularity == "module" else 1e-12)


# --- 10: accounting


@pytest.mark.parametrize("granularity", ["stack", "module"])
@pytest.mark.parametrize(("guidance", "passes"), [("none", 1), ("batched", 1), ("calls", 2)])
def test_10_module_calls_are_those_of_the_full_steps_alone_rehearsals_or_not(granularity, guidance, passes):
    model = dit()
    pipe = Pipe(model)
    with (
        omnicache.cache(pipe, omnicache_trajectory(schedule=MARKS, gamma=GAMMA, granularity=granularity)) as run,
        counted(model) as calls,
    ):
        pipe(guidance=guidance)
    modules = [f"transformer_blocks.{i}.{part}" for i in range(3) for part in ("attn1", "ff")]
    full = len(MARKS) - MARKS.count(".")
    assert sum(calls[m] for m in modules) == full * passes * len(modules)
    assert sum(r.rehearsals for r in run.trace.records) == 3 * passes
    assert calls["norm_out"] == (10 + 3) * passes
    if granularity == "stack":  # the post-gate form leaves norms and gates out, too
        assert calls["transformer_blocks.1.norm1"] == full * passes


def test_10_the_first_step_of_a_run_is_not_rehearsed():
    """There is nothing to reuse yet: the rehearsal would compute the whole model, in vain."""
    pipe = Pipe(dit())
    options = {"schedule": "#.#.#.#.#.", "gamma": (None, 0.5) * 5}
    with omnicache.cache(pipe, "omnicache-trajectory", **options) as run, counted(pipe.model) as calls:
        pipe()
    assert calls["transformer_blocks.0.ff"] == run.computed.count("#") == 5
    assert [r.rehearsals for r in run.trace.records] == [0, 0, 1, 0, 1, 0, 1, 0, 1, 0]


@pytest.mark.parametrize(
    ("total", "reuses", "printed"),
    [(30, 15, 1615.12 / 3230.24), (30, 18, 1292.10 / 3230.24), (250, 150, 47.47 / 118.68), (50, 30, 1375.79 / 3439.47)],
)
def test_10_the_papers_flops_are_the_share_of_full_steps(total, reuses, printed):
    marks = cheapest([float(i % 7) for i in range(total)], reuses)
    assert marks.count("#") / total == 1 - reuses / total == pytest.approx(printed, abs=2e-4)


def test_10_the_papers_speed_up_of_the_distilled_model():
    marks = cheapest([1.0] * 16, 5)
    assert 16 / marks.count("#") == pytest.approx(1.4545, abs=1e-4)


# --- 11: post-gate identity


def test_11_one_stack_residual_is_the_sum_of_the_gated_module_outputs():
    model = Curves(lambda t: 1.0 + 0.1 * t, gate=lambda t: 0.2 * t, layers=3)
    x0, x1 = torch.randn(2, 1, 4, 8, 8, dtype=torch.float64)
    outs, sums = {}, {}
    for granularity in ("stack", "module"):
        where, how = policy_at(granularity)
        with omnicache.cache(model, Policy(Table("#."), where, how)):
            model(x0, 9.0)
            parts = [added for block in model.blocks for added in block.added]
            sums = {"stack": sum(parts), "module": sum(p * (0.2 * 5.0) / (0.2 * 9.0) for p in parts)}
            outs[granularity] = model(x1, 5.0)
        torch.testing.assert_close(outs[granularity], 0.3 * (x1 + sums[granularity]), rtol=0, atol=1e-12)
    assert not torch.allclose(outs["stack"], outs["module"], atol=1e-3)


def test_11_on_a_transformer_too():
    model = dit()
    pipe, parts, heads, entries = Pipe(model), [], [], []
    gates: dict[int, tuple] = {}

    def modulation(i):
        return lambda m, args, out: gates.update({i: (out[1], out[4])})

    def gated(i, which):
        return lambda m, args, out: parts.append(gates[i][which][:, None] * out)

    with omnicache.cache(pipe, omnicache_trajectory(schedule="#....", granularity="stack")) as run:
        hooks = []
        for i, block in enumerate(model.transformer_blocks):
            hooks.append(block.norm1.register_forward_hook(modulation(i)))
            hooks.append(block.attn1.register_forward_hook(gated(i, 0)))
            hooks.append(block.ff.register_forward_hook(gated(i, 1)))
        hooks.append(model.pos_embed.register_forward_hook(lambda m, args, out: entries.append(out)))
        hooks.append(model.norm_out.register_forward_pre_hook(lambda m, args: heads.append(args[0])))
        pipe(num_inference_steps=5)
        for hook in hooks:
            hook.remove()
    assert run.computed == "#...."
    assert len(parts) == 6
    for entry, head in zip(entries, heads, strict=True):
        torch.testing.assert_close(head, entry + sum(parts), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("build", [dit, sd3])
def test_the_stack_keeps_one_tensor_a_stream_and_the_measured_noise(build):
    pipe = Pipe(build())
    with omnicache.cache(pipe, omnicache_trajectory(schedule=MARKS, gamma=GAMMA, cutoff=None)) as run:
        pipe()
    tokens, latent = 16 * 16 * 4, 4 * 8 * 8 * 4
    assert run.cache_bytes == tokens + latent  # float32; SD3's text stream ends inside the stack
