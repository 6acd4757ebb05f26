"""Guidance as a place: which branch is which, what is proved of halves, and what is said where it cannot be used."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from tests.methods.tiny import ddim
from tests.tiny import Pipe, sample
from torch import Tensor, nn

import omnicache
from omnicache.granularity import Guidance
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.predictors import Hold, Residual
from omnicache.runtime.blend import blend_of
from omnicache.runtime.ranks import Ranks
from omnicache.triggers import Every, Table

HELD = Plan("held", (Policy(Every(3, 0), Guidance(), Residual(Hold())),))
STEPS = 8


class Block(nn.Module):
    def __init__(self, factor: float):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor), requires_grad=False)

    def forward(self, hidden_states: Tensor) -> Tensor:
        return hidden_states * self.factor


class Added(nn.Module):
    """Adds its condition to half of its input: so the branches of guidance differ by the same at every step."""

    def __init__(self, fault: str = "", variance: bool = False):
        super().__init__()
        self.blocks, self.fault, self.variance = nn.ModuleList([Block(0.5), Block(1.0)]), fault, variance
        self.seen: list[Tensor] = []

    def cache_context(self, name: str) -> Any:
        return nullcontext()

    def forward(self, hidden_states: Tensor, timestep: Tensor, condition: Tensor) -> Tensor:
        self.seen.append(condition[:, 0, 0, 0].clone())
        for block in self.blocks:
            hidden_states = block(hidden_states)
        if self.fault == "mixes":
            hidden_states = hidden_states + 0.1 * (hidden_states + condition).mean(0, keepdim=True)
        if self.fault == "raises" and len(hidden_states) % 2:
            raise ValueError("odd")
        out = hidden_states + condition
        return torch.cat((out, 0.1 * out), 1) if self.variance else out


class Loop:
    """Guidance as pipelines do it, in all the ways in which they do.

    Args of a call: the layout, the order of the branches, the scale, and what is done besides: the batch and its output are handed
    on "doubled" (DiT), the blend is "rescaled", or there is a "third" call.
    """

    def __init__(self, model: Added):
        self.transformer, self.scheduler = model, ddim()

    def __call__(self, layout="batched", order=("uncond", "cond"), scale=3.0, extra="", names=False, sampler=True) -> Tensor:
        draw = torch.Generator().manual_seed(0)
        x = torch.randn(1, 4, 8, 8, generator=draw)
        told = {"cond": torch.randn(1, 4, 8, 8, generator=draw), "uncond": torch.zeros(1, 4, 8, 8)}
        told["cond"][:, 0, 0, 0] = 7.0
        if sampler:
            self.scheduler.set_timesteps(STEPS)
        for t in self.scheduler.timesteps if sampler else torch.linspace(900, 100, STEPS):
            if layout == "batched":
                out = self.transformer(torch.cat([x, x]), t, torch.cat([told[n] for n in order]))
                outs = dict(zip(order, out.chunk(2), strict=True))
            else:
                outs = {}
                for name in order:
                    with self.transformer.cache_context(name) if names else nullcontext():
                        outs[name] = self.transformer(x, t, told[name])
                if extra == "third":
                    self.transformer(x, t, told["cond"] + 1)
            outs = {n: v[:, :4] for n, v in outs.items()}
            guided = outs["uncond"] + scale * (outs["cond"] - outs["uncond"])
            if extra == "rescaled":
                guided = 0.8 * guided
            if not sampler:
                x = x - 0.1 * guided
            elif extra == "doubled":
                x = self.scheduler.step(guided.repeat(2, 1, 1, 1), t, x.repeat(2, 1, 1, 1)).prev_sample[:1]
            else:
                x = self.scheduler.step(guided, t, x).prev_sample
        return x


ORDERS = [("uncond", "cond"), ("cond", "uncond")]


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
@pytest.mark.parametrize("extra", ["", "doubled"])
@pytest.mark.parametrize("variance", [False, True])
def test_the_conditional_half_runs_alone_wherever_it_lies(order, extra, variance):
    loop = Loop(Added(variance=variance))
    plain = loop(order=order, extra=extra)
    for runs, mark in (("conditional", 7.0), ("unconditional", 0.0)):
        loop.transformer.seen.clear()
        plan = Plan("held", (Policy(Every(3, 0), Guidance(runs), Residual(Hold())),))
        with omnicache.cache(loop, plan) as run:
            out = loop(order=order, extra=extra)
            again = loop(order=order, extra=extra)
        assert run.computed == "#oo#oo#o"
        torch.testing.assert_close(out, plain, rtol=1e-5, atol=1e-5)  # the difference is constant: held, it is exact
        assert torch.equal(again, out)
        alone = [seen for seen in loop.transformer.seen if len(seen) == 1]
        assert len(alone) == 1 + 2 * 5  # one of them the proof, once in a session
        assert {float(s) for s in alone[1:]} == {mark}


@pytest.mark.parametrize("names", [False, True])
def test_of_two_calls_the_second_is_answered(names):
    loop = Loop(Added())
    plain = loop("calls", ("cond", "uncond"), names=names)
    with omnicache.cache(loop, HELD) as run:
        loop.transformer.seen.clear()
        torch.testing.assert_close(loop("calls", ("cond", "uncond"), names=names), plain, rtol=1e-5, atol=1e-5)
        assert [run.trace.strip(b) for b in run.trace.branches()] == ["########", "#..#..#."]
        assert [float(s) for s in loop.transformer.seen] == [7, 0, 7, 7, 7, 0, 7, 7, 7, 0, 7]
        assert not run.trace.notes
        # The other order: what would be the input comes too late.
        assert torch.equal(loop("calls", ("uncond", "cond"), names=names), loop("calls", ("uncond", "cond"), names=names))
        assert set(run.computed) == {"#"}
        assert "called after it" in str(run)


@pytest.mark.parametrize(
    ("layout", "more", "said"),
    [
        ("batched", {"scale": 1.0}, "the scale is between 0 and 1"),
        ("batched", {"scale": 0.5}, "the scale is between 0 and 1"),
        ("batched", {"extra": "rescaled"}, "does more with the two than to blend them"),
        ("batched", {"sampler": False}, "pass the pipeline"),
        ("calls", {"scale": 0.5}, "the scale is between 0 and 1"),
        ("calls", {"extra": "third"}, "more than two a step"),
        ("calls", {"order": ("cond",)}, "there is none"),
    ],
)
def test_what_is_not_clear_is_computed_and_said(layout, more, said):
    loop = Loop(Added())
    order = more.get("order", ("cond", "uncond"))
    if len(order) == 1:
        loop = _unguided(loop)
    call = lambda: loop(layout, **{"order": order, **{k: v for k, v in more.items() if k != "order"}})  # noqa: E731
    plain = call()
    with omnicache.cache(loop if more.get("sampler", True) else loop.transformer, HELD) as run:
        assert torch.equal(call(), plain)
    assert set("".join(run.trace.strip(b) for b in run.trace.branches())) == {"#"}
    assert said in str(run)


def _unguided(loop: Loop) -> Any:
    """One call a step, whose output is stepped by."""

    class Single(Loop):
        def __call__(self, layout="", order=(), scale=1.0, extra="") -> Tensor:
            x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
            self.scheduler.set_timesteps(STEPS)
            for t in self.scheduler.timesteps:
                x = self.scheduler.step(self.transformer(x, t, torch.ones(1, 4, 8, 8)), t, x).prev_sample
            return x

    return Single(loop.transformer)


def test_names_do_without_a_scheduler():
    loop = Loop(Added())
    plain = loop("calls", ("cond", "uncond"), names=True, sampler=False)
    with omnicache.cache(loop.transformer, HELD) as run:
        out = loop("calls", ("cond", "uncond"), names=True, sampler=False)
    torch.testing.assert_close(out, plain, rtol=1e-5, atol=1e-5)
    assert {b: run.trace.strip(b) for b in run.trace.branches()} == {"cond": "########", "uncond": "#..#..#."}


@pytest.mark.parametrize(("fault", "said"), [("mixes", "does not give what it gives beside"), ("raises", "raises ValueError")])
def test_a_model_whose_halves_are_not_apart_is_computed(fault, said):
    loop = Loop(Added(fault))
    plain = loop()
    with omnicache.cache(loop, HELD) as run:
        for _ in range(2):
            loop.transformer.seen.clear()
            assert torch.equal(loop(), plain)
            assert run.computed == "#" * STEPS
            assert said in str(run)
        assert len(loop.transformer.seen) == STEPS  # it was tried once


def test_a_plan_that_reuses_nothing_tries_nothing():
    loop = Loop(Added())
    with omnicache.cache(loop, Plan("held", (Policy(Every(1), Guidance(), Residual(Hold())),))):
        loop()
    assert len(loop.transformer.seen) == STEPS


def test_the_blend_is_read_from_what_is_handed_over():
    a, b = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0)).unbind(0)
    alone = Ranks()
    for c in (-6.5, 0.3, 7.5):
        g = a + c * (b - a)
        assert blend_of(g, a, b, alone) == pytest.approx(c, abs=1e-4)
        assert blend_of(g.repeat(2, 1, 1, 1), a, b, alone) == pytest.approx(c, abs=1e-4)
        assert blend_of(g[:, :2], a, b, alone) == pytest.approx(c, abs=1e-4)
        half = [t.bfloat16() for t in (a, a + 0.1 * b)]
        assert blend_of(half[0] + c * (half[1] - half[0]), *half, alone) == pytest.approx(c, abs=0.1)
        assert blend_of(0.9 * g, a, b, alone) is None
    assert blend_of(None, a, b, alone) is None
    assert blend_of(torch.cat((a, b)), a, b, alone) is None
    assert blend_of(a, a, a.clone(), alone) is None
    assert blend_of(a * torch.nan, a, b, alone) is None
    assert blend_of(a[:, :, :4], a, b, alone) is None


# --- what lies inside -------------------------------------------------------------------------------------------------------

INSIDE = {
    "dit": {"method": "fora", "granularity": "stack", "count": "up", "interval": 2},
    "sd3": {"method": "fora", "granularity": "stack", "count": "up", "interval": 2},
    "latte": {"method": "fora", "granularity": "stack", "count": "up", "interval": 2},
    "unet": {"method": "deepcache", "interval": 2},
    "unet2d": {"method": "fora", "count": "up", "interval": 2},
}


@pytest.mark.parametrize("kind", INSIDE)
@pytest.mark.parametrize("swap", [False, True])
def test_a_half_takes_its_rows_of_what_is_kept(kind, swap):
    """The first half that runs reuses what the whole batch has kept: so it gives what it would give beside the other half."""
    options = dict(INSIDE[kind])
    inner = omnicache.methods()[options.pop("method")].plan(**options)
    between = Plan("between", (Policy(Table("####.#####"), Guidance(), Residual(Hold())),))
    pipe = Pipe(kind)
    inner = Plan("inner", tuple(Policy(Table("#.##.#.#.#"), p.where, p.how) for p in inner.policies))
    outs: list[list[Tensor]] = []
    marks = []
    for plan in (inner, inner + between):
        outs.append([])
        with omnicache.cache(pipe, plan) as run:
            sample(pipe, swap=swap, watch=lambda i, arguments, out: outs[-1].append(out.clone()))
        marks.append(run.computed)
    cond = slice(1, 2) if swap else slice(0, 1)
    torch.testing.assert_close(outs[1][4][cond], outs[0][4][cond], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(outs[1][4], outs[0][4], rtol=1e-4, atol=1e-4)
    assert [m == "o" for m in marks[1]][4]
    assert run.trace.records[4].computed == (0 if kind != "unet2d" else run.trace.records[4].computed)
    # The step after it is computed by both; the one after that reuses by both again.
    assert marks[1][5] == "#"


@pytest.mark.parametrize("guidance", ["batched", "calls"])
def test_a_whole_call_after_a_half_does_not_mix(guidance):
    """Attention is computed for one branch at step 4 and would be reused by both at step 5: computed instead, for both."""
    pipe = Pipe("dit")
    inside = omnicache.methods()["fora"].plan(count="up").policies[0]
    plan = Plan(
        "both", (Policy(Table("####.#####"), Guidance(), Residual(Hold())), Policy(Table("#.#.#..#.#"), inside.where, inside.how))
    )
    calls: list[int] = []
    hook = pipe.model.transformer_blocks[1].attn1.register_forward_hook(lambda m, args, out: calls.append(len(out)))
    seen: list[list[int]] = []

    def note(*_: Any) -> None:
        seen.append(list(calls))
        calls.clear()

    with omnicache.cache(pipe, plan):
        sample(pipe, guidance, after=note)
    hook.remove()
    each = [2, 0, 2, 0, 1, 2, 0, 2, 0, 2]
    assert [sum(s) for s in seen] == [each[0] + (guidance == "batched"), *each[1:]]  # the first one's half more is the proof
