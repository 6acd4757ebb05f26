"""T-GATE (arXiv 2404.02747): the tests that its reference asks for."""

import pytest
import torch
from tests.tiny import Pipe as Loop
from tests.tiny import drawn, sample
from torch import nn

import omnicache
from omnicache.errors import OmniCacheError
from omnicache.methods.t_gate import t_gate

from .tiny import Pipe as Plain
from .tiny import dit, full_steps, sd3, strip

GATE = {"gate": 5, "interval": 2, "warmup": 0}


def attentions(model: nn.Module, cross: bool) -> list[nn.Module]:
    return [m for n, m in model.named_modules() if n.endswith("attn2" if cross else "attn1")]


def test_released_schedules():
    cross, between, own = t_gate().policies
    assert full_steps(strip(cross.when, 25)) == full_steps(strip(between.when, 25)) == list(range(10))
    assert full_steps(strip(own.when, 25)) == [0, 1, 2, 5, 9, *range(10, 25)]
    cross, _, own = omnicache.methods()["t-gate"].plan_for(["PixArtTransformer2DModel"]).policies
    assert full_steps(strip(cross.when, 25)) == list(range(15))
    assert full_steps(strip(own.when, 25)) == [0, 1, 2, 3, 6, 9, 12, 14, *range(15, 25)]
    assert len(t_gate(interval=1).policies) == 2  # v1 leaves self-attention alone


@pytest.mark.parametrize(("p", "f", "w", "g"), [(5, 1, 2, 10), (3, 2, 0, 7), (4, 3, 6, 5), (2, 5, 1, 1)])
def test_self_attention_follows_the_table(p, f, w, g):
    own = t_gate(gate=g, interval=p, after=f, warmup=w).policies[2]

    def computes(n: int) -> bool:
        return n % f == 0 if n >= g else n == g - 1 or n <= w or n % p == 0

    assert full_steps(strip(own.when, 25)) == [n for n in range(25) if computes(n) or n == 0]


@pytest.mark.parametrize("kind", ["latte", "unet"])
@pytest.mark.parametrize("guidance", ["batched", "calls"])
def test_the_model_runs_on_one_branch_after_the_gate_and_attends_to_no_text(kind, guidance):
    pipe, rows, looks, seen = Loop(kind), [], [], []
    pipe.model.register_forward_hook(lambda m, args, out: rows.append(len(out.sample)))
    for m in attentions(pipe.model, cross=True):
        m.register_forward_hook(lambda *_: looks.append(1))

    def note(*_):
        seen.append((sum(rows), bool(looks)))
        rows.clear()
        looks.clear()

    with omnicache.cache(pipe, "t-gate", **GATE):
        sample(pipe, guidance)
        rows.clear()
        looks.clear()
        sample(pipe, guidance, after=note)
    assert seen == [(2, True)] * 5 + [(1, False)] * 5


@pytest.mark.parametrize("kind", ["latte", "unet"])
@pytest.mark.parametrize("after", [1, 2])
def test_both_layouts_of_guidance_draw_the_same(kind, after):
    pipe, outs = Loop(kind), []
    pipe.model.double()
    with omnicache.cache(pipe, "t-gate", **GATE, after=after):
        for guidance, swap in (("batched", False), ("batched", True), ("calls", False), ("calls", True)):
            outs.append(sample(pipe, guidance, swap=swap))
    for out in outs[1:]:
        torch.testing.assert_close(out, outs[0], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("guidance", ["batched", "calls"])
def test_after_the_gate_the_text_does_not_matter(guidance):
    pipe = Loop("unet")
    outs = []
    for other in (False, True):
        swapped = []

        def swap(module, args, kwargs, other=other, swapped=swapped):
            swapped.append(1)
            if other and len(swapped) > (5 if guidance == "batched" else 10) + 1 * (guidance == "batched"):
                text = kwargs["encoder_hidden_states"]
                return args, {**kwargs, "encoder_hidden_states": drawn(*text.shape, seed=5)}
            return None

        handle = pipe.model.register_forward_pre_hook(swap, with_kwargs=True)
        with omnicache.cache(pipe, "t-gate", **GATE):
            outs.append(sample(pipe, guidance))
        handle.remove()
    assert torch.equal(*outs)


@pytest.mark.parametrize("guidance", ["batched", "calls"])
def test_cross_attention_is_held_as_the_mean_of_the_branches(guidance):
    pipe, given, held = Loop("unet"), [], []
    attention = attentions(pipe.model, cross=True)[0]

    def look(step, *_):
        """What is kept at the step after the gate, for both branches, or for the half that runs."""
        (current,) = run.sessions[0].runs
        states = [s for b in current.branches.values() for s in (b, *b.halves.values())]
        cells = [c for s in states for c in s.cells.values() if c.site.modules == (attention,)]
        held.extend(c.history[0] for c in cells if step == 4 and c.history)

    with omnicache.cache(pipe, "t-gate", gate=3, interval=1) as run:
        sample(pipe, guidance)  # once in a session a half is run besides
        attention.register_forward_hook(lambda m, args, out: given.append(out.clone()))
        sample(pipe, guidance, watch=look)
    a, b = given[2].chunk(2) if guidance == "batched" else given[4:6]
    assert len(given) == (3 if guidance == "batched" else 6)
    assert len(held) >= 2
    for entry in held:
        assert entry.step.index == 2
        for part in entry.tensors[0].split(1):
            torch.testing.assert_close(part, (a + b) / 2)


@pytest.mark.parametrize("guidance", ["batched", "calls"])
def test_a_gate_that_never_closes_is_the_plain_model_to_the_bit(guidance):
    pipe = Loop("latte")
    plain = sample(pipe, guidance)
    for gate in (10, 11, 1000):
        with omnicache.cache(pipe, "t-gate", gate=gate, interval=1) as run:
            assert torch.equal(sample(pipe, guidance), plain)
        assert set(run.computed) == {"#"}


def test_without_guidance_cross_attention_is_held_as_it_is():
    from .tiny import text_unet

    pipe = Plain(text_unet())
    with omnicache.cache(pipe, "t-gate", **GATE) as run:
        out = pipe()
    assert torch.isfinite(out).all()
    assert run.computed[-1] == "o"


@pytest.mark.parametrize("model", [dit, sd3])
def test_joint_attention_is_refused(model):
    with pytest.raises(OmniCacheError, match=r"t-gate needs cross-attention, and .* has none"):
        omnicache.enable(Plain(model()), "t-gate")
