"""DiCache (arXiv 2508.17356): the tests of its reference."""

import math

import pytest
import torch
from torch import nn

import omnicache
from omnicache.predictors import Aligned
from omnicache.runtime.step import Step

from .tiny import Pipe, counted, dit, full_steps, latte, sd3


def learned(*steps: int, limit: float = 1.5, scale: float = 1.0):
    """Increments of all blocks and of the first ones that are affine in the step, on a stream that is something else each time."""
    how, history = Aligned(limit), ()
    for n in steps:
        history = how.learn(history, Step(n), *_value(n, scale))
    return how, history


def _value(n: float, scale: float = 1.0):
    draw = torch.Generator().manual_seed(7)
    a, b, c, d = (torch.randn(2, 4, 3, generator=draw, dtype=torch.float64) for _ in range(4))
    entry = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(int(n)), dtype=torch.float64)
    return (entry + a + n * b * scale, entry), (entry + c + n * d,)


@pytest.mark.parametrize("ahead", [1, 2])
def test_what_is_affine_in_the_step_is_exact_up_to_the_limit(ahead):
    how, history = learned(4, 8)
    x, (truth,) = _value(8 + ahead)
    torch.testing.assert_close(how.estimate(history, Step(8 + ahead), x)[0], truth)
    assert how.gamma(*x, *(e.tensors[0][1] for e in history)).flatten().tolist() == pytest.approx([1 + ahead / 4] * 2)


def test_beyond_the_limit_it_is_clipped():
    how, history = learned(4, 8)
    x, _ = _value(11)
    assert how.gamma(*x, *(e.tensors[0][1] for e in history)).flatten().tolist() == [1.5, 1.5]


def test_where_the_first_blocks_do_not_move_the_newest_increment_is_held():
    how, history = learned(4, 8, scale=0.0)
    x, _ = _value(9, 0.0)
    torch.testing.assert_close(how.estimate(history, Step(9), x)[0], x[1] + history[0].tensors[0][0])


def test_one_computed_step_is_held():
    how, history = learned(8)
    x, _ = _value(9)
    torch.testing.assert_close(how.estimate(history, Step(9), x)[0], x[1] + history[0].tensors[0][0])


@pytest.mark.parametrize("guidance", ["none", "batched", "calls"])
@pytest.mark.parametrize("model", [dit, sd3, latte])
def test_threshold_minus_infinity_changes_nothing_and_infinity_computes_what_is_forced(model, guidance):
    shape = {"shape": (4, 3, 8, 8)} if model is latte else {}
    pipe = Pipe(model())
    plain = pipe(guidance=guidance, **shape)
    with omnicache.cache(pipe, "dicache", threshold=-math.inf):
        assert torch.equal(pipe(guidance=guidance, **shape), plain)
    with omnicache.cache(pipe, "dicache", threshold=math.inf) as run:
        pipe(guidance=guidance, **shape)
    assert {run.trace.strip(b).replace("o", ".") for b in run.trace.branches()} == {"##.......#"}


class Times(nn.Module):
    def __init__(self, factor: float):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor, dtype=torch.float64), requires_grad=False)

    def forward(self, hidden_states):
        return hidden_states * self.factor


class Row(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(Times(2.0) for _ in range(4))

    def forward(self, hidden_states, timestep):
        for block in self.blocks:
            hidden_states = block(hidden_states)
        return hidden_states


@pytest.mark.parametrize(
    ("growth", "threshold", "steps"),
    [
        pytest.param(1.1, 0.25, 12, id="a tenth a step: every ceil(2.5) = 3 steps"),
        pytest.param(2.0, 3.0, 10, id="exactly 1 a step: the threshold, just reached, computes"),
    ],
)
def test_a_constant_change_computes_as_the_reference_says(growth, threshold, steps):
    model = Row()
    with omnicache.cache(model, "dicache", threshold=threshold, warmup=0.0, tail=0) as run:
        for i in range(steps):
            model(torch.full((1, 1, 1), growth**i, dtype=torch.float64), torch.tensor([900 - i]))
    assert full_steps(run.computed.replace("o", ".")) == [0, 3, 6, 9]


def test_excess_counts_only_what_the_first_blocks_change_more_than_their_input():
    model = Row()
    with omnicache.cache(model, "dicache", threshold=0.01, warmup=0.0, tail=0, measure="excess") as run:
        for i in range(8):  # a first block that scales its input changes as much as that does
            model(torch.full((1, 1, 1), 1.1**i, dtype=torch.float64), torch.tensor([900 - i]))
    assert full_steps(run.computed.replace("o", ".")) == [0]


def test_only_the_first_blocks_run_at_a_reused_step():
    pipe = Pipe(dit(layers=4))
    with omnicache.cache(pipe, "dicache", threshold=math.inf, depth=2), counted(pipe.model) as calls:
        pipe(num_inference_steps=10)
    assert [calls[f"transformer_blocks.{i}"] for i in range(4)] == [10, 10, 3, 3]


def test_both_guidance_calls_keep_their_own():
    pipe = Pipe(sd3())
    with omnicache.cache(pipe, "dicache", threshold=0.3):
        apart = pipe(guidance="calls", num_inference_steps=14)
        together = pipe(guidance="batched", num_inference_steps=14)
    torch.testing.assert_close(apart, together, atol=1e-4, rtol=1e-4)


def test_alignment_can_be_left_out():
    pipe = Pipe(dit())
    with omnicache.cache(pipe, "dicache", threshold=math.inf, align=False) as held:
        a = pipe()
    with omnicache.cache(pipe, "dicache", threshold=math.inf) as aligned:
        b = pipe()
    assert held.computed == aligned.computed
    assert not torch.equal(a, b)
    assert held.cache_bytes < aligned.cache_bytes
