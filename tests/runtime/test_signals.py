"""Signals that are read inside the model: before a block, and on what a module returns."""

import pytest
import torch
from torch import nn

import omnicache
from omnicache.errors import OmniCacheError
from omnicache.granularity import Block, Blocks, Layers, Stack
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.predictors import Hold, Residual
from omnicache.signals import OutputChange, ProbeChange
from omnicache.triggers import Above, Accumulate, First


class Double(nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(2.0), requires_grad=False)

    def forward(self, hidden_states):
        return hidden_states * self.factor


class Doubles(nn.Module):
    """Three blocks that double; the calls of each are counted."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(Double() for _ in range(3))
        self.calls = [0, 0, 0]
        for i, block in enumerate(self.blocks):
            block.register_forward_pre_hook(lambda m, args, i=i: self.calls.__setitem__(i, self.calls[i] + 1))

    def forward(self, hidden_states, timestep):
        for block in self.blocks:
            hidden_states = block(hidden_states)
        return hidden_states


def drawn(plan, values, model=None):
    """Outputs for streams of one number each, which steps computed, and how often each block ran."""
    model = model or Doubles()
    with omnicache.cache(model, plan) as run, torch.no_grad():
        outs = [float(model(torch.full((1, 1, 1), float(v)), torch.tensor([100.0 - i]))) for i, v in enumerate(values)]
        return outs, run.computed, model.calls


def plan(when, where=None):
    return Plan("probe", (Policy(First(1) | when, where or Layers(1, None), Residual(Hold())),), min_steps=0)


def first_block(threshold, **more):
    return plan(Above(ProbeChange(1), threshold, **more))


def test_the_first_block_runs_always_and_the_others_when_it_has_changed_enough():
    outs, computed, calls = drawn(first_block(0.15), [10, 11, 12, 12.5, 20])
    assert computed == "#.#.#"
    assert calls == [5, 3, 3]
    # reused: twice the input after the first block, and six times the input of the last computed step
    assert outs == [80, 2 * 11 + 60, 96, 2 * 12.5 + 72, 160]


def test_the_reference_is_the_last_computed_step():
    """A drift of 0.4 thresholds a step is computed at every third; one that is undone never is."""
    drift = [10 * (1 + 0.04 * i) for i in range(7)]
    assert drawn(first_block(0.1), drift)[1] == "#..#..#"
    assert drawn(first_block(0.1), [10, 10.6] * 4)[1] == "#" + "." * 7


def test_against_the_last_visited_step_the_same_drift_is_never_seen():
    drift = [10 * (1 + 0.04 * i) for i in range(7)]
    visited = plan(Above(ProbeChange(1, against="visited"), 0.1))
    assert drawn(visited, drift)[1] == "#" + "." * 6
    gathered = plan(Accumulate(ProbeChange(1, "output", "visited"), 0.1))
    assert drawn(gathered, drift)[1].count("#") > 1


def test_no_more_reuses_in_a_row_than_allowed():
    assert drawn(first_block(0.5, longest=2), [10] * 7)[1] == "#..#..#"


@pytest.mark.parametrize("threshold", [0.0, float("-inf")])
def test_without_tolerance_all_is_computed(threshold):
    values = [10, 10, 11]
    assert drawn(first_block(threshold), values)[0] == [80, 80, 88]


def test_the_increment_is_looked_at_and_not_the_stream():
    """A constant that is added to the input of all steps is in the stream, and in the increment of a doubling block; deeper blocks
    are looked at by what they hand on."""
    model = Doubles()
    model.blocks[0].forward = lambda hidden_states: hidden_states + 1  # adds the same whatever it is given
    assert drawn(first_block(0.01), [10, 50, 100], model)[1] == "#.."
    model = Doubles()
    model.blocks[0].forward = lambda hidden_states: hidden_states + 1
    assert drawn(plan(Above(ProbeChange(1, "output"), 0.01)), [10, 50, 100], model)[1] == "###"


def test_blocks_that_write_to_their_input_are_seen_before_they_do():
    model = Doubles()
    model.blocks[0].forward = lambda hidden_states: hidden_states.mul_(2)
    outs, computed, _ = drawn(first_block(0.15), [10, 11, 20], model)
    assert computed == "#.#"
    assert outs == [80, 82, 160]


def test_two_blocks_deep():
    outs, computed, calls = drawn(plan(Above(ProbeChange(2), 0.15), Layers(2, None)), [10, 11, 20])
    assert (computed, calls) == ("#.#", [3, 3, 2])
    assert outs == [80, 44 + 40, 160]


def test_a_probe_as_deep_as_the_model_is_refused():
    with pytest.raises(OmniCacheError, match="watches what 3 blocks do before the others run, and Doubles has 3"):
        omnicache.enable(Doubles(), plan(Above(ProbeChange(3), 0.1), Stack()))


def test_what_a_module_returned_is_known_at_the_next_step():
    """Doubling inputs change by 100 %, which is told after the second step: that one and the third are computed."""
    rule = Above(OutputChange(Block(2)), 0.5)
    outs, computed, _ = drawn(plan(rule, Stack()), [10, 20, 21, 21, 21, 21])
    # steps 0 and 1: nothing to compare with; 2: changed by 100 %, computed, and changed by 5 %; then all is reused
    assert computed == "###..."
    assert outs[:3] == [80, 160, 168]


def test_a_part_that_is_not_there_is_refused():
    with pytest.raises(OmniCacheError, match="has no such part"):
        omnicache.enable(Doubles(), plan(Above(OutputChange(Blocks(7, 8)), 0.5), Stack()))
