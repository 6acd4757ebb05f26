"""SpeCa (arXiv 2509.11628): the tests that its reference asks for."""

import itertools
import math

import pytest
import torch

import omnicache
from omnicache.granularity import MLP, Attention
from omnicache.methods.speca import speca
from omnicache.policy import Policy
from omnicache.predictors import Taylor
from omnicache.triggers import First, Verify

from .tiny import Curves, Pipe, counted, dit, full_steps, strip


def cycles(marks: str) -> list[int]:
    """Lengths of the stretches of drafts between computed steps."""
    return [len(part) for part in marks.split("#") if part]


@pytest.mark.parametrize("shortest", [0, 1, 2, 3, 4])
def test_errors_always_above_the_threshold_give_one_full_step_and_max_2_min_plus_1_drafts(shortest):
    when = speca(shortest=shortest, longest=8, warmup=3).policies[0].when
    marks = strip(when, 60, error=10.0)
    drafts = cycles(marks[3:])
    assert marks[:3] == "###"
    assert set(drafts[:-1]) == {max(2, shortest + 1)}
    # the first draft of a cycle is never checked: an error acts one step later
    assert all(part[0] == "." for part in marks.split("#") if part)


@pytest.mark.parametrize("longest", [1, 3, 5])
def test_an_infinite_threshold_computes_every_max_plus_1_steps(longest):
    marks = strip(speca(threshold=math.inf, decay=1.0, longest=longest, warmup=1).policies[0].when, 50, error=1e9)
    assert full_steps(marks) == list(range(0, 50, longest + 1))


def test_an_error_of_the_last_permitted_draft_or_none_at_all():
    assert strip(speca(shortest=2, longest=5, warmup=3).policies[0].when, 15, error=0.0) == "###..???#..???#"[:15]
    assert strip(speca(shortest=2, longest=5, warmup=3).policies[0].when, 15, error=math.nan) == "###..?#..?#..?#"


def test_the_threshold_falls_with_progress_down_to_its_floor():
    verify = Verify(threshold=0.3, decay=0.05, floor=0.02)
    limits = [verify.limit(p / 100) for p in range(100)]
    assert limits[0] == 0.3
    assert all(a >= b for a, b in itertools.pairwise(limits))
    assert limits[50] == pytest.approx(0.3 * 0.05**0.5)
    assert limits[99] == pytest.approx(0.02)
    assert Verify(threshold=0.1, decay=0.01, floor=0.01).limit(0.9) == 0.01


def test_the_same_error_passes_early_and_fails_late():
    marks = strip(speca(threshold=0.3, decay=0.05, floor=0.0, shortest=1, longest=4, warmup=1).policies[0].when, 60, error=0.06)
    drafts = cycles(marks)
    assert drafts[0] == 4
    assert drafts[-2] == 2
    assert drafts[:-1] == sorted(drafts[:-1], reverse=True)


@pytest.mark.parametrize("degree", [0, 1, 2])
def test_polynomial_modules_up_to_the_order_are_never_wrong_and_force_no_full_step(degree):
    pipe = Pipe(Curves(lambda t: 1.0 + (0.01 * t) ** degree, layers=3))
    verify = Verify(threshold=1e-9, decay=1.0, floor=0.0, shortest=1, longest=4)
    with omnicache.cache(pipe, Policy(First(3) | verify, Attention() | MLP(), Taylor(degree, "newton"))) as run:
        out = pipe(num_inference_steps=23, dtype=torch.float64)
    assert run.computed == "###" + ".???#" * 4
    assert all(r.error < 1e-12 for r in run.trace.records if r.checked)
    torch.testing.assert_close(out, pipe(num_inference_steps=23, dtype=torch.float64), rtol=0, atol=1e-8)


def test_polynomial_modules_above_the_order_do_force_full_steps():
    pipe = Pipe(Curves(lambda t: 1.0 + (0.01 * t) ** 2, layers=3))
    verify = Verify(threshold=1e-9, decay=1.0, floor=0.0, shortest=1, longest=4)
    with omnicache.cache(pipe, Policy(First(3) | verify, Attention() | MLP(), Taylor(1, "newton"))) as run:
        pipe(num_inference_steps=23, dtype=torch.float64)
    assert run.computed == "###" + ".?#" * 6 + ".?"


def test_a_checked_draft_costs_the_last_block_once_more_and_nothing_else():
    model = dit(layers=4)
    pipe = Pipe(model)
    with omnicache.cache(pipe, "speca", threshold=1e9, decay=1.0, longest=5) as run, counted(model) as calls:
        pipe(num_inference_steps=15)
    assert run.computed == "###..???#..???#"
    full, checked = run.computed.count("#"), run.computed.count("?")
    assert [calls[f"transformer_blocks.{i}.attn1"] for i in range(4)] == [full, full, full, full + checked]
    assert calls["transformer_blocks.3.ff"] == full + checked


def test_a_check_leaves_the_draft_as_it_is_and_teaches_nothing():
    pipe = Pipe(dit())
    outs = []
    for shortest in (0, 4):  # with 4 no draft is checked before the fifth
        with omnicache.cache(pipe, "speca", threshold=1e9, decay=1.0, shortest=shortest, longest=4) as run:
            outs.append(pipe(num_inference_steps=20))
    assert "?" not in run.computed
    assert torch.equal(*outs)


def test_the_error_is_that_of_the_last_block_on_its_drafted_input():
    model = dit()
    pipe, inputs, heads = Pipe(model), [], []
    last = model.transformer_blocks[-1]
    with omnicache.cache(pipe, "speca", threshold=1e9, decay=1.0, shortest=1, longest=3, warmup=1) as run:
        hooks = [last.norm1.register_forward_pre_hook(lambda _, args: inputs.append(args[0].clone()))]
        hooks += [model.norm_out.register_forward_pre_hook(lambda _, args: heads.append(args[0].clone()))]
        pipe(num_inference_steps=5)
        for hook in hooks:
            hook.remove()
    assert run.computed == "#.??#"
    record = run.trace.records[2]
    drafted_input, drafted = inputs[2], heads[2]  # at step 2; the check is the last block's next call
    with torch.no_grad():
        time = pipe.scheduler.timesteps[2].expand(1)
        honest = last(drafted_input, timestep=time, class_labels=torch.tensor([1]))
    assert torch.equal(inputs[2], inputs[3])
    assert record.error == pytest.approx(float((drafted - honest).abs().mean() / honest.abs().mean()), rel=1e-4)


@pytest.mark.parametrize("layers", [3, 6])
def test_the_acceptance_counter_reproduces_the_speed_up_of_the_priced_model(layers):
    """``S = 1 / ((1 - a) + v)`` prices drafts at nothing and charges every step with a verification."""
    model, total = dit(layers=layers), 43
    pipe = Pipe(model)
    with omnicache.cache(pipe, "speca", threshold=0.05, decay=0.3, shortest=1, order=1) as run, counted(model) as calls:
        pipe(num_inference_steps=total)
    blocks = sum(calls[f"transformer_blocks.{i}.attn1"] for i in range(layers))
    accepted = sum(mark != "#" for mark in run.computed) / total
    checked, cost = run.computed.count("?") / total, 1 / layers
    assert 0 < accepted < 1
    assert 0 < checked < accepted
    assert total * layers / blocks == pytest.approx(1 / ((1 - accepted) + cost * checked))
    assert 1 / ((1 - accepted) + cost) <= total * layers / blocks <= 1 / (1 - accepted)


@pytest.mark.parametrize("guidance", ["none", "batched", "calls"])
def test_with_roll_back_and_every_draft_rejected_the_output_is_that_of_no_cache(guidance):
    pipe = Pipe(dit())
    plain = pipe(num_inference_steps=12, guidance=guidance)
    with omnicache.cache(pipe, "speca", threshold=0.0, floor=0.0, redo=True) as run:
        assert torch.equal(pipe(num_inference_steps=12, guidance=guidance), plain)
    assert run.computed == "#" * 12
    assert sum(r.redone for r in run.trace.records) > 0
    with omnicache.cache(pipe, "speca", threshold=0.0, floor=0.0, redo=False):
        assert not torch.equal(pipe(num_inference_steps=12, guidance=guidance), plain)


def test_with_roll_back_every_draft_is_checked_and_accepted_ones_stay():
    pipe = Pipe(dit())
    with omnicache.cache(pipe, "speca", threshold=1e9, decay=1.0, redo=True, longest=3) as run:
        pipe(num_inference_steps=12)
    assert run.computed == "###???#???#?"


def test_no_draft_permitted_is_the_plain_model():
    pipe = Pipe(dit())
    plain = pipe()
    with omnicache.cache(pipe, "speca", longest=0):
        assert torch.equal(pipe(), plain)


def test_the_warm_up_steps_are_all_computed():
    assert strip(speca(warmup=4).policies[0].when, 12, error=0.0).startswith("####.")
