"""LazyDiT (arXiv 2412.12444): the tests that its reference asks for."""

import pytest
import torch

import omnicache
from omnicache.calibrate.gates.loop import Loop
from omnicache.calibrate.gates.mix import Mix
from omnicache.calibrate.gates.modules import gated_sites
from omnicache.calibrate.gates.pairs import in_pairs, second_steps
from omnicache.methods.lazydit import lazydit
from omnicache.models import discover
from omnicache.policy import Rows
from omnicache.runtime.step import Step
from omnicache.selectors import LinearGate
from omnicache.weights import Weights

from .tiny import Pipe, counted, dit, sd3, text_unet

TOTAL, WIDTH = 10, 16
MARKS = "".join("." if n in second_steps(TOTAL) else "#" for n in range(TOTAL))


def modules(model):
    return [s for s in discover(model).all if s.kind in ("attention", "cross_attention", "mlp")]


def gates_for(model, scale: float, seed: int = 0) -> tuple[Weights, ...]:
    draw = torch.Generator().manual_seed(seed)
    return tuple(Weights(scale * torch.randn(TOTAL, WIDTH, generator=draw)) for _ in modules(model))


@pytest.mark.parametrize("model", [dit, sd3])
def test_gates_of_nought_compute_everything_exactly(model):
    pipe = Pipe(model())
    plain = pipe(label=[1, 2])
    with omnicache.cache(pipe, "lazydit", schedule=MARKS, gates=gates_for(pipe.model, 0.0)) as run:
        assert torch.equal(pipe(label=[1, 2]), plain)
    assert run.computed == "#" * TOTAL


def test_gates_that_always_skip_are_fora_with_an_interval_of_two():
    pipe = Pipe(dit())
    with omnicache.cache(pipe, "fora", interval=2, count="up"):
        wanted = pipe(label=[1, 2])
    with omnicache.cache(pipe, "lazydit", schedule=MARKS, gates=gates_for(pipe.model, 0.0), threshold=1.5) as run:
        assert torch.equal(pipe(label=[1, 2]), wanted)
    assert run.computed == MARKS


@pytest.mark.parametrize("model", [dit, sd3])
@pytest.mark.parametrize("guidance", ["none", "batched", "calls"])
def test_each_sample_is_what_it_is_alone(model, guidance):
    """Rows of a batch that decide otherwise; in double precision, since products of other sizes round otherwise."""
    pipe = Pipe(model().double())
    labels = [1, 4, 7]
    noise = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def draw(which):
        pipe.scheduler.set_timesteps(TOTAL)
        x = noise[which]
        conditions = pipe.conditions(torch.tensor([labels[i] for i in which]))
        none = pipe.conditions(torch.full((len(which),), 10))
        conditions, none = ({k: v.double() if v.is_floating_point() else v for k, v in c.items()} for c in (conditions, none))
        both = {k: torch.cat([none[k], conditions[k]]) for k in conditions}
        with torch.no_grad():
            for t in pipe.scheduler.timesteps:
                if guidance == "batched":
                    a, b = pipe.evaluate(torch.cat([x, x]), t, both).chunk(2)
                elif guidance == "calls":
                    a, b = pipe.evaluate(x, t, none), pipe.evaluate(x, t, conditions)
                else:
                    a = b = pipe.evaluate(x, t, conditions)
                x = pipe.scheduler.step((a + 2 * (b - a))[:, :4], t, x).prev_sample
        return x

    with omnicache.cache(pipe, "lazydit", schedule=MARKS, gates=gates_for(pipe.model, 0.3)) as run:
        together = draw([0, 1, 2])
        assert "o" in run.computed
        alone = torch.cat([draw([i]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-8, atol=1e-10)
    assert not torch.allclose(together, draw([0, 1, 2]))


def test_skipped_samples_are_as_many_as_the_gates_say():
    """The share that is not computed, of the samples that modules are given, is what the gates of those inputs say."""
    pipe = Pipe(dit())
    gates = gates_for(pipe.model, 0.3)
    said = []

    class Telling(LinearGate):
        def choose(self, state, site, step, rows):
            found = super().choose(state, site, step, rows)
            said.append(0 if found[0] is None else len(found[0].index))
            return found

    plan = lazydit(schedule=MARKS, gates=gates)
    for policy in plan.policies:
        object.__setattr__(policy, "which", Telling(policy.which.weights))
    sizes = []
    hooks = [
        site.modules[0].register_forward_pre_hook(
            lambda m, a, k: sizes.append(len(a[0] if a else k["hidden_states"])), with_kwargs=True
        )
        for site in modules(pipe.model)
    ]
    with omnicache.cache(pipe, plan) as run:
        pipe(label=[1, 2, 3])
    for hook in hooks:
        hook.remove()
    full = 3 * len(modules(pipe.model)) * MARKS.count("#")
    assert sum(sizes) == full + sum(said)
    assert len(said) == len(modules(pipe.model)) * MARKS.count(".")
    assert 0 < sum(said) < 3 * len(said)
    assert run.computed.count("#") >= MARKS.count("#")


def test_the_gate_is_a_sum_over_rows_without_a_bias():
    x = torch.randn(5, 7, 4)
    w = torch.randn(3, 4)
    gate = LinearGate(Weights(w))
    torch.testing.assert_close(gate.logits(Step(1), x), torch.einsum("bnc,c->b", x, w[1]))
    chosen, _ = gate.choose(None, None, Step(1), Rows(x))
    wanted = [b for b in range(5) if float(torch.einsum("nc,c->", x[b], w[1])) >= 0]
    assert (chosen.index[:, 0] // 7).tolist() == wanted
    assert chosen.whole


@pytest.mark.parametrize("x", [torch.full((2, 3, 4), torch.nan), torch.zeros(2, 3, 5)], ids=["nan", "another width"])
def test_what_is_unknown_is_computed(x):
    chosen, _ = LinearGate(Weights(torch.ones(3, 4)), 1.5).choose(None, None, Step(1), Rows(x))
    assert len(chosen.index) == 2
    beyond, _ = LinearGate(Weights(torch.ones(3, 4)), 1.5).choose(None, None, Step(3), Rows(torch.ones(2, 3, 4)))
    assert len(beyond.index) == 2


def test_hard_gates_give_what_the_mix_gives_with_gates_of_nought_and_one():
    pipe, found, states, cached = Pipe(dit()), {}, {}, {}
    gates = gates_for(pipe.model, 0.3)
    loop = Loop(pipe)
    loop.measure({"label": [1, 2]})

    def hard(step):
        def weigh(i, bound):
            x = bound["hidden_states"]
            return (x.sum(1) @ gates[i].tensor[step] >= 0).float()

        return weigh

    with Mix(pipe.model, [s.modules[0] for s in gated_sites("lazydit", pipe.model)]).attached() as mix:
        in_pairs(loop, {"label": [1, 2]}, mix, hard, lambda n, out, truth: found.update({n: out.sample.detach()}))
    hook = pipe.model.register_forward_pre_hook(lambda m, a, k: states.update({len(states): (a, k)}), with_kwargs=True)
    pipe(label=[1, 2])
    hook.remove()
    with omnicache.cache(pipe, "lazydit", schedule=MARKS, gates=gates), torch.no_grad():
        pipe.scheduler.set_timesteps(TOTAL)
        for n, t in enumerate(pipe.scheduler.timesteps):
            args, kwargs = states[n]
            cached[n] = pipe.model(*args, **kwargs).sample
            pipe.scheduler.step(cached[n][:, :4], t, args[0])
    for n, out in found.items():
        torch.testing.assert_close(cached[n], out, rtol=1e-5, atol=1e-6)


def test_misfits_are_refused():
    gates = gates_for(dit(), 1.0)
    with pytest.raises(omnicache.OmniCacheError, match="for 10 steps, and the schedule has 8"):
        lazydit(schedule="#." * 4, gates=gates)
    with pytest.raises(omnicache.OmniCacheError, match="needs a fitted schedule"):
        lazydit(schedule="#.")
    with pytest.raises(omnicache.OmniCacheError, match="6 modules"):
        omnicache.enable(Pipe(text_unet()), "lazydit", schedule=MARKS, gates=gates)
    with pytest.raises(omnicache.OmniCacheError, match="a vector for each step"):
        LinearGate(Weights(torch.zeros(3)))


def test_a_skipping_step_calls_nothing():
    pipe = Pipe(dit())
    with (
        omnicache.cache(pipe, "lazydit", schedule=MARKS, gates=gates_for(pipe.model, 0.0), threshold=1.5),
        counted(pipe.model) as calls,
    ):
        pipe()
    assert {calls[s.name] for s in modules(pipe.model)} == {MARKS.count("#")}
