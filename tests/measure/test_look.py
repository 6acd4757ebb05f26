"""A run looked at closely: what ran and strayed is what one finds by hand, and nothing is left behind."""

from __future__ import annotations

import math

import pytest
import torch

import omnicache
from omnicache.api import plan_of
from omnicache.granularity import Denoiser, Stack
from omnicache.measure.look import layers_of, look, relative
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.predictors import Hold, Residual
from omnicache.runtime.hook import SLOT
from omnicache.triggers import Table

from ..methods.tiny import Pipe, dit, unet

MARKS = "##.#..#.#."


def seen(plan, model=None, **more):
    pipe = Pipe(model or dit())
    return pipe, look(pipe, plan, lambda: pipe(3, **more))


def test_what_is_drawn_is_what_the_plan_draws_and_no_hook_is_left():
    pipe, found = seen(plan_of("fora"))
    with omnicache.cache(pipe, "fora") as run:
        drawn = pipe(3)
    assert torch.equal(found.made, drawn) and found.run.computed == run.computed
    assert torch.equal(found.latents[-1], drawn) and len(found.latents) == 11
    assert max(found.bytes) == run.cache_bytes > 0 and len(found.bytes) == 10
    assert not any(SLOT in vars(m) for m in pipe.model.modules()) and "step" not in vars(pipe.scheduler)


def test_the_error_of_a_step_is_that_of_its_output_on_the_same_latents():
    pipe, found = seen(Plan("held", (Policy(Table(MARKS), Denoiser(), Hold()),)))
    label, outputs = torch.tensor([3]), []
    pipe.scheduler.set_timesteps(10)
    with torch.no_grad():
        for x, t in zip(found.latents, pipe.scheduler.timesteps, strict=False):
            outputs.append(pipe.evaluate(x, t, {"class_labels": label}))
    kept = outputs[0]
    for i, mark in enumerate(MARKS):
        kept = outputs[i] if mark == "#" else kept
        assert math.isclose(found.strayed[i], relative(kept, outputs[i]), rel_tol=1e-4, abs_tol=1e-6)
    assert all((e > 0) == (mark == ".") for e, mark in zip(found.strayed, MARKS, strict=True))


@pytest.mark.parametrize("guidance", ["batched", "calls"])
def test_parts_that_a_plan_governs_are_seen_one_by_one(guidance):
    _, found = seen(plan_of("fora", interval=2), guidance=guidance)
    assert list(found.ran) == [f"transformer_blocks.{i}.{part}" for i in range(3) for part in ("attn1", "ff")]
    for name, row in found.ran.items():
        assert row == [float(mark == "#") for mark in found.run.computed]
        assert [e > 0 for e in found.off[name]] == [mark == "." for mark in found.run.computed]


def test_a_share_of_the_rows_is_seen_as_such():
    _, found = seen(plan_of("omnicache-md", token=0.5))
    shares = {share for row in found.ran.values() for share in row}
    assert 1.0 in shares and any(0 < share < 1 for share in shares)


def test_of_layers_that_are_passed_over_only_the_last_hands_something_on():
    _, found = seen(Plan("stack", (Policy(Table(MARKS), Stack(), Residual(Hold())),)))
    first, *_, last = found.off.values()
    for i, mark in enumerate(MARKS):
        assert [row[i] for row in found.ran.values()] == [float(mark == "#")] * 3
        assert math.isnan(first[i]) == (mark == ".") and (last[i] > 0) == (mark == ".")


def test_layers_of_a_unet_and_of_a_plan_that_caches_nothing():
    _, found = seen(plan_of("deepcache", interval=2), unet(), num_inference_steps=6)
    assert len(found.ran) > 3 and found.run.computed == "#.#.#."
    ran = list(zip(*found.ran.values(), strict=True))
    assert set(ran[0]) == {1.0} and 0.0 in ran[1]
    off = [[name for name, row in found.off.items() if row[i] > 0] for i in (0, 1)]
    last = [name for name, row in found.ran.items() if row[1] == 0][-1]
    assert off[0] == [] and off[1][0] == last, "only what the deep part hands on, and what follows it"
    assert 0 < found.off[last][1] < 1, "its held value, and no stand-in of a module that was passed over"
    _, found = seen(plan_of("none"))
    assert found.ran == {} and found.strayed == [0.0] * 10


def test_at_most_64_layers_are_looked_at():
    found = layers_of(dit(layers=70), plan_of("taylorseer"))
    assert len(found.modules) == 35 and not found.whole and not found.parts


def test_nothing_is_left_behind_by_a_run_that_fails():
    pipe = Pipe(dit())

    def failing():
        pipe(3)
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        look(pipe, plan_of("fora"), failing)
    assert not any(SLOT in vars(m) for m in pipe.model.modules()) and "step" not in vars(pipe.scheduler)
