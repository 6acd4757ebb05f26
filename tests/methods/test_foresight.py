"""Foresight (arXiv 2506.00329): the tests of its reference."""

import pytest
import torch
from torch import nn

import omnicache
from omnicache.errors import OmniCacheError
from omnicache.granularity import Blocks
from omnicache.policy import Decision, Moment, Policy
from omnicache.predictors import Hold
from omnicache.runtime.step import Step
from omnicache.triggers import Every, First, Foresight

from .tiny import Pipe, counted, dit, full_steps, latte, sd3


class Add(nn.Module):
    """Adds its own number, grown by ``rise`` at each step of its time."""

    def __init__(self, rise: float):
        super().__init__()
        self.rise = nn.Parameter(torch.tensor(rise, dtype=torch.float64), requires_grad=False)

    def forward(self, hidden_states, timestep):
        return hidden_states + self.rise * (999 - timestep) ** 2


class Curve(Add):
    """Adds a number of its own at each step."""

    def __init__(self, *values: float):
        super().__init__(0.0)
        self.values = values

    def forward(self, hidden_states, timestep):
        return hidden_states + self.values[int(999 - timestep)]


class Row(nn.Module):
    def __init__(self, *rises: float | Add):
        super().__init__()
        self.blocks = nn.ModuleList(rise if isinstance(rise, Add) else Add(rise) for rise in rises)

    def forward(self, hidden_states, timestep):
        for block in self.blocks:
            hidden_states = block(hidden_states, timestep)
        return hidden_states


def run(model: nn.Module, steps: int = 14, **options):
    with omnicache.cache(model, "foresight", **options) as on, counted(model) as calls:
        out = [float(model(torch.ones(1, 1, 1, dtype=torch.float64), torch.tensor(999.0 - i))) for i in range(steps)]
    return on, calls, out


def test_what_does_not_change_skips_the_whole_stack_at_every_other_step():
    on, calls, out = run(Row(0.0, 0.0, 0.0), warmup=4, interval=2)
    assert full_steps(on.computed) == [0, 1, 2, 3, 4, 6, 8, 10, 12]
    assert all(n == 9 for n in calls.values()) and set(out) == {1.0}


def test_scale_zero_changes_nothing_where_features_move():
    pipe = Pipe(dit())
    plain = pipe(num_inference_steps=14)
    with omnicache.cache(pipe, "foresight", scale=0.0, warmup=4):
        assert torch.equal(pipe(num_inference_steps=14), plain)


def test_layers_up_to_the_deepest_that_may_be_are_reused_and_those_after_it_renewed():
    """The first two blocks stand still, the third moves faster and faster: only the first two may be reused."""
    on, calls, out = run(Row(0.0, 0.0, 1.0), warmup=4, interval=2)
    assert on.computed.startswith("#####o#o#o")
    assert calls["blocks.0"] == calls["blocks.1"] < calls["blocks.2"] == 14
    assert out == [1.0 + i**2 for i in range(14)]


def test_what_is_computed_after_the_reused_layers_is_what_the_next_steps_compare_and_reuse():
    """The second block moves too much at step 3, and is computed at step 4, where it moves little: step 5 reuses what step 4 has
    kept. It jumps at step 6, which is whole, so it is computed at step 7, and step 8 reuses that."""
    on, _, out = run(Row(0.0, Curve(0.0, 1.0, 2.0, 3.0, 3.5, 20.0, 9.0, 9.125, 30.0, 9.25)), 10, warmup=4, interval=3, scale=0.5)
    assert on.computed == "####o.#o.#"
    assert out == [1.0, 2.0, 3.0, 4.0, 4.5, 4.5, 10.0, 10.125, 10.125, 10.25]


@pytest.mark.parametrize("model", [dit, sd3, latte])
def test_reusing_a_prefix_is_what_reusing_the_deepest_layer_alone_comes_to(model):
    """The outputs of the layers before it are computed in vain then."""
    shape = {"shape": (4, 3, 8, 8)} if model is latte else {}
    pipe = Pipe(model())
    drawn, calls = [], []
    for layers in (Upto(), Only()):
        with omnicache.cache(pipe, Policy(First(4) | Every(2, phase=0) | layers, Blocks(), Hold())) as on, counted(pipe.model) as n:
            drawn.append(pipe(num_inference_steps=12, **shape))
        assert on.computed == "#####o#o#o#o"
        calls.append(sum(count for name, count in n.items() if name.count(".") == 1 and "blocks." in name))
    torch.testing.assert_close(*drawn, atol=1e-5, rtol=1e-5)
    assert calls[0] == calls[1] - 4  # four steps, and one layer before the deepest


class Upto(Foresight):
    """Reuses up to the second layer, whatever has changed."""

    def decide(self, state, moment: Moment):
        return Decision.REUSE, ((), 1)


class Only(Upto):
    def spares(self, state, site: int) -> bool:
        return site == 1


@pytest.mark.parametrize(("terms", "weight"), [(1, 1.0), (3, 1.11)])
def test_the_allowance_of_a_ramp(terms, weight):
    """Outputs a + b n change by b**2; the paper weighs three such changes, the release one."""
    when, b = Foresight(warmup=4, terms=terms), 3.0
    state = when.init()
    for i in range(1, 5):
        told = torch.tensor([[b**2]], dtype=torch.float64) if i > 1 else None
        _, state = when.decide(state, Moment(Step(i, 20), signals={when.signal: told}))
    allowed = sum(float(change[0, 0]) / 10**j for j, change in enumerate(state[0]))
    assert allowed == pytest.approx(weight * b**2)
    for change, deepest in ((0.99 * allowed, 0), (1.01 * allowed, -1)):
        moment = Moment(Step(5, 20), signals={when.signal: torch.tensor([[change]], dtype=torch.float64)})
        assert when.decide(state, moment)[1][1] == deepest


def test_the_sample_that_moves_most_decides_and_unknown_computes():
    when = Foresight(warmup=2, terms=1)
    one = torch.ones(2, 2, dtype=torch.float64)
    _, state = when.decide(when.init(), Moment(Step(2, 20), signals={when.signal: one}))
    for told, deepest in (([[1.0, 1.0], [1.0, 2.0]], 0), ([[2.0, 1.0], [1.0, 1.0]], 1), ([[1.0, 1.0], [1.0, float("nan")]], 0)):
        moment = Moment(Step(3, 20), signals={when.signal: torch.tensor(told, dtype=torch.float64)})
        assert when.decide(state, moment)[1][1] == deepest


def test_site_by_site_cannot_be_turned_round():
    for wrong in (lambda: ~Foresight(), lambda: First(2) & Foresight()):
        with pytest.raises(OmniCacheError, match="site by site"):
            wrong()


@pytest.mark.parametrize("guidance", ["batched", "calls"])
def test_both_guidance_branches_reuse_the_same(guidance):
    pipe = Pipe(sd3())
    with omnicache.cache(pipe, "foresight", warmup=4, scale=20.0) as on:
        pipe(guidance=guidance, num_inference_steps=16)
    assert len({on.trace.strip(b) for b in on.trace.branches()}) == 1
