"""TeaCache (arXiv 2411.19108): the tests that its reference asks for."""

import itertools
import math

import pytest
import torch
from torch import nn

import omnicache
from omnicache.granularity import Denoiser, Stack
from omnicache.methods.teacache import RELEASED, teacache
from omnicache.policy import Moment, Policy
from omnicache.predictors import Hold, Residual
from omnicache.runtime.step import Step
from omnicache.signals import LatentChange, ModulatedInputChange, TimeChange
from omnicache.triggers import Accumulate, First, Last

from .tiny import Doubling, Pipe, counted, dit, full_steps, latte, number, sd3, strip

SIGNAL = ModulatedInputChange()

# Values of the released polynomials: those of the reference, and others worked out from its table of coefficients.
POLYNOMIALS = {
    "flux.1-dev": {0.0: 0.26423, 0.05: 0.18050, 0.1: 0.20685},
    "hunyuanvideo": {0.05: 0.06204},
    "ltx-video": {0.1: 0.10141},
    "cogvideox-5b": {0.0: -0.05232},
    "open-sora-plan-1.1": {0.2: 223.01111},
    "mochi-1": {0.2: -1.07614},
    "wan2.1-t2v-1.3b": {0.02: 0.07817},
    "wan2.1-t2v-14b": {0.0: -0.31558, 0.02: 0.14092},
    "wan2.1-i2v-480p": {0.02: 0.17965},
}


def moment(change: float | list[float] | None, index: int = 1) -> Moment:
    known = None if change is None else torch.as_tensor(change, dtype=torch.float64).reshape(-1)
    return Moment(Step(index, 50), Step(0, 50), index - 1, {SIGNAL: known})


@pytest.mark.parametrize("model", POLYNOMIALS)
def test_values_of_the_released_polynomials(model):
    coefficients = tuple(RELEASED[model]["coefficients"])
    for x, p in POLYNOMIALS[model].items():
        _, gathered = Accumulate(SIGNAL, 1.0, coefficients, floor=None).decide(None, moment(x))
        assert float(gathered) == pytest.approx(p, abs=6e-6)
        _, gathered = Accumulate(SIGNAL, 1.0, coefficients).decide(None, moment(x))
        assert float(gathered) == pytest.approx(max(p, 0.0), abs=6e-6)


def test_as_released_what_is_gathered_is_not_clamped_and_starts_anew_after_a_computation():
    trigger = Accumulate(SIGNAL, 0.25, (1.0, -0.1), floor=None)  # p(x) = x - 0.1 can be negative, as released ones can
    decision, state = trigger.decide(None, moment(0.3))
    assert decision.value == "."
    assert float(state) == pytest.approx(0.2)
    decision, state = trigger.decide(state, moment(0.05))
    assert float(state) == pytest.approx(0.15)
    decision, state = trigger.decide(state, moment(0.21))
    assert decision.value == "#"
    assert float(state) == pytest.approx(0.26)
    assert trigger.settle(state, moment(0.21), decision) is None


def test_the_sample_that_has_gathered_most_decides_for_all():
    trigger = Accumulate(SIGNAL, 0.25)
    _, state = trigger.decide(None, moment([0.2, 0.0]))
    decision, state = trigger.decide(state, moment([0.0, 0.2]))
    assert decision.value == "."
    assert state.tolist() == pytest.approx([0.2, 0.2])
    decision, state = trigger.decide(state, moment([0.0, 0.06]))
    assert decision.value == "#"  # the mean over the batch would stand at 0.23


def test_an_unknown_or_undefined_change_computes():
    trigger = Accumulate(SIGNAL, math.inf)
    assert trigger.decide(None, moment(None))[0].value == "#"
    assert trigger.decide(None, moment([0.1, math.nan]))[0].value == "#"


def decided(threshold: float, changes: list[float], **options) -> str:
    return strip(teacache(threshold=threshold, **options).policies[0].when, len(changes), signals={SIGNAL: changes})


def test_threshold_minus_infinity_computes_all_and_zero_does_for_a_polynomial_that_is_not_negative():
    changes = [None, *([0.01] * 19)]
    assert decided(-math.inf, changes) == "#" * 20
    assert decided(0.0, changes) == "#" * 20
    assert decided(0.0, changes, coefficients=(1.0, -0.5)) == "#" * 20  # what is estimated below nothing counts as nothing
    released = First(1) | Last(1) | Accumulate(SIGNAL, 0.0, (1.0, -0.5), floor=None)
    assert strip(released, 20, signals={SIGNAL: changes}) == "#" + "." * 18 + "#"


def test_a_shipped_polynomial_is_clamped_unless_the_released_rule_is_asked_for():
    """CogVideoX-5B's takes away 0.0523 at a step that changes nothing, and adds 0.0874 at a change of 0.03: two and two come to
    0.0702 as released, and to 0.1748 if less than nothing counts as nothing."""
    changes = [None, 0.0, 0.0, 0.03, 0.03, 0.0]
    for options, marks in (({}, "#...##"), ({"floor": False}, "#....#")):
        when = teacache(model="cogvideox-5b", **options).policies[0].when
        assert strip(when, 6, signals={when.signals[0]: changes}) == marks


def test_threshold_infinity_computes_exactly_two_steps():
    assert full_steps(decided(math.inf, [None, *([5.0] * 29)])) == [0, 29]


def test_a_signal_that_grows_by_a_tenth_each_step_computes_every_third_and_the_last():
    u = [1.1**n for n in range(20)]
    changes = [None, *((b - a) / a for a, b in itertools.pairwise(u))]
    assert all(c == pytest.approx(0.1) for c in changes[1:])
    assert full_steps(decided(0.25, changes)) == [0, 3, 6, 9, 12, 15, 18, 19]


def test_warm_up_and_tail_are_computed_and_zero_what_was_gathered():
    changes = [None, *([0.1] * 19)]
    assert full_steps(decided(0.25, changes, warmup=5, tail=0)) == [0, 1, 2, 3, 4, 7, 10, 13, 16, 19]


def test_toy_bench_two_doubling_blocks_reuse_11_as_41():
    model = Doubling()
    with omnicache.cache(model, "teacache", threshold=math.inf):
        assert float(model(number(10), 9.0)) == 40
        assert float(model(number(11), 8.0)) == 41
    with omnicache.cache(model, Policy(First(1), Denoiser(), Hold())):
        assert float(model(number(10), 9.0)) == 40
        assert float(model(number(11), 8.0)) == 40
    with omnicache.cache(model, "teacache", threshold=-math.inf):
        assert [float(model(number(v), t)) for v, t in ((10, 9.0), (11, 8.0))] == [40, 44]


def test_the_signal_compares_with_the_step_before_computed_or_not():
    """With the growing latent the distance to the last *computed* step would compound: 0.1, 0.21, 0.33."""
    model = Doubling()
    with omnicache.cache(model, "teacache", threshold=0.25) as run:
        for n in range(10):
            model(number(1.1**n), float(20 - n))
        seen = [float(v.max()) for r in run.trace.records for v in r.signals.values() if v is not None]
    assert seen == pytest.approx([0.1] * 9, rel=1e-4)
    assert full_steps(run.computed) == [0, 3, 6, 9]


def test_a_model_without_a_modulated_norm_says_that_its_hidden_states_were_watched():
    with omnicache.cache(Doubling(), "teacache") as run:
        run.sessions[0].model.model(number(1), 2.0)
        assert any("hidden states were watched" in n for n in run.trace.notes)


@pytest.mark.parametrize(("build", "shape"), [(dit, (4, 8, 8)), (sd3, (4, 8, 8)), (latte, (4, 3, 8, 8))])
def test_the_signal_is_the_first_blocks_normed_and_shifted_input(build, shape):
    model = build()
    pipe, inputs = Pipe(model), []
    first = model.transformer_blocks[0]
    inside = first.attn if hasattr(first, "attn") else first.attn1
    hook = inside.register_forward_pre_hook(
        lambda _, args, kwargs: inputs.append((args[0] if args else kwargs["hidden_states"]).clone()), with_kwargs=True
    )
    with omnicache.cache(pipe, "teacache", threshold=-math.inf) as run:
        pipe(num_inference_steps=5, shape=shape)
    hook.remove()
    assert not any("watched" in note for note in run.trace.notes)
    for record, now, before in zip(run.trace.records[1:], inputs[1:], inputs, strict=False):
        rel = ((now - before).abs().flatten(1).mean(1) / before.abs().flatten(1).mean(1)).max()
        assert float(record.signals[SIGNAL].max()) == pytest.approx(float(rel), rel=1e-4)


class Timed(nn.Module):
    """Hands its block the embedded time, as CogVideoX and Wan do."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.tensor(2.0), requires_grad=False)

        def forward(self, hidden_states, temb):
            return hidden_states * self.factor + temb.mean()

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(self.Block() for _ in range(2))

    def forward(self, hidden_states, timestep):
        temb = embedded(timestep).expand(hidden_states.shape[0], -1)
        for block in self.blocks:
            hidden_states = block(hidden_states, temb)
        return hidden_states


def embedded(timestep: torch.Tensor) -> torch.Tensor:
    return torch.stack([(timestep / 100).sin(), (timestep / 1000).cos(), timestep / 500])[None]


def test_the_change_of_the_embedded_time_is_relative_and_the_same_for_all_prompts():
    model, strips, times = Timed(), set(), [torch.tensor(900.0 - 40 * n) for n in range(12)]
    for prompt in (1, 2, 3):
        draw = torch.Generator().manual_seed(prompt)
        with omnicache.cache(model, "teacache", signal="time", threshold=0.3) as run:
            for t in times:
                model(torch.randn(2, 4, 3, generator=draw), t)
        strips.add(run.computed)
        told = [r.signals[TimeChange()] for r in run.trace.records]
        assert told[0] is None
        for found, now, before in zip(told[1:], times[1:], times, strict=False):
            change = (embedded(now) - embedded(before)).abs().mean() / embedded(before).abs().mean()
            assert found.tolist() == pytest.approx([float(change)] * 2, rel=1e-5)
    (marks,) = strips
    assert 2 < marks.count("#") < 12


def test_a_reuse_step_runs_no_block_and_every_head():
    model = dit()
    pipe = Pipe(model)
    with omnicache.cache(pipe, "teacache", threshold=math.inf) as run, counted(model) as calls:
        pipe(num_inference_steps=8)
    assert run.computed == "#......#"
    assert calls["transformer_blocks.2"] == 2
    assert calls["norm_out"] == 8
    # one norm of the first block a step is the probe's own
    assert calls["transformer_blocks.0.norm1"] == 8 + 2
    assert calls["transformer_blocks.1.norm1"] == 2


def test_one_decision_for_both_guidance_passes_and_a_residual_for_each():
    pipe = Pipe(dit())
    with omnicache.cache(pipe, "teacache", threshold=0.3) as run:
        one = pipe(guidance="batched")
        strips = {run.trace.strip(b) for b in run.trace.branches()}
        two = pipe(guidance="calls")
        assert len(run.trace.branches()) == 2
        strips |= {run.trace.strip(b) for b in run.trace.branches()}
    assert len(strips) == 1
    assert "." in strips.pop()
    torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-3)


def test_teacache_is_the_sentence_it_says():
    clause = teacache(threshold=0.2, warmup=2, tail=3).policies[0]
    assert (clause.where, clause.how, clause.which, clause.fix) == (Stack(), Residual(Hold()), None, None)
    assert LatentChange() not in clause.when.signals
    assert SIGNAL in clause.when.signals
