"""FORA (arXiv 2407.01425): the tests that its reference asks for."""

import pytest
import torch

import omnicache
from omnicache.methods.fora import fora

from .tiny import Curves, Pipe, counted, dit, full_steps, strip


@pytest.mark.parametrize(("total", "interval", "full"), [(250, 3, 84), (50, 3, 18), (20, 2, 11)])
def test_full_counts_when_the_steps_are_counted_down(total, interval, full):
    marks = strip(fora(interval=interval).policies[0].when, total)
    assert marks.count("#") == full
    released = [total - 1 - s for s in range(total - 1, -1, -1) if s == total - 1 or s % interval == 0]
    assert full_steps(marks) == released


@pytest.mark.parametrize(("total", "interval"), [(250, 3), (50, 3), (20, 2), (20, 7)])
def test_counting_up_is_the_modulus_of_the_index(total, interval):
    marks = strip(fora(interval=interval, count="up").policies[0].when, total)
    assert full_steps(marks) == list(range(0, total, interval))


def test_the_two_counts_differ_where_the_interval_does_not_divide_the_last_index():
    down, up = (strip(fora(interval=3, count=c).policies[0].when, 20) for c in ("down", "up"))
    assert down != up
    assert down[-1] == "#"
    assert up[-1] == "."
    assert strip(fora(interval=3, count="down").policies[0].when, 19) == strip(fora(interval=3, count="up").policies[0].when, 19)


@pytest.mark.parametrize("guidance", ["none", "batched", "calls"])
def test_a_reuse_step_calls_no_attention_and_no_mlp_but_every_modulation(guidance):
    model = dit(layers=3)
    pipe, passes = Pipe(model), 2 if guidance == "calls" else 1
    with omnicache.cache(pipe, "fora", interval=3) as run, counted(model) as calls:
        pipe(num_inference_steps=11, guidance=guidance)
    assert run.computed == "##..#..#..#"  # counted down: 10 because it is the first, then 9, 6, 3, 0
    full = run.computed.count("#")
    for i in range(3):
        block = f"transformer_blocks.{i}"
        inner = [n for n, _ in model.named_modules() if n.startswith((f"{block}.attn1", f"{block}.ff"))]
        assert {calls[n] for n in inner if n in calls} == {full * passes}
        assert calls[f"{block}.norm1"] == calls[f"{block}.norm3"] == 11 * passes


def test_with_constant_gates_a_reuse_step_is_the_input_plus_the_sum_of_what_is_kept():
    model = Curves(lambda t: 1.0 + 0.1 * t, gate=lambda t: 0.7)
    x0, x1 = torch.randn(2, 1, 4, 8, 8, dtype=torch.float64)
    with omnicache.cache(model, "fora", interval=3):
        model(x0, 9.0)
        kept = [a for block in model.blocks for a in block.added]
        out = model(x1, 8.0)
    for added in kept:
        x1 = x1 + added
    assert torch.equal(out, 0.3 * x1)


def test_fresh_gates_apply_to_what_is_kept():
    model = Curves(lambda t: 1.0, gate=lambda t: t)
    x = torch.randn(1, 4, 8, 8, dtype=torch.float64)
    with omnicache.cache(model, "fora", interval=3):
        model(x, 9.0)
        reused = model(x, 5.0)
    assert torch.equal(reused, model(x, 5.0))  # the modules are constant: only the gates move, and they are live


def test_interval_one_is_the_plain_model_to_the_bit():
    pipe = Pipe(dit())
    plain = pipe(guidance="batched")
    with omnicache.cache(pipe, "fora", interval=1) as run:
        assert torch.equal(pipe(guidance="batched"), plain)
    assert run.computed == "#" * 10
