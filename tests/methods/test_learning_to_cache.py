"""Learning-to-Cache (arXiv 2406.01733): the tests that its reference asks for."""

import pytest
import torch

import omnicache
from omnicache.calibrate.gates.loop import Loop
from omnicache.calibrate.gates.mix import Mix
from omnicache.calibrate.gates.modules import gated_sites
from omnicache.calibrate.gates.pairs import in_pairs, second_steps
from omnicache.granularity import MLP, Attention
from omnicache.methods.learning_to_cache import learning_to_cache
from omnicache.triggers import Table

from .tiny import Pipe, counted, dit, sd3, text_unet

TOTAL, MODULES = 10, 6
ROWS = ("#.#.#.#.#.", "##########", "#.###.###.", "#.#.#.#.#.", "###.######", "#.###.###.")
"""For a DiT of three blocks: attention, MLP, attention, ..."""


def test_all_ones_is_the_plain_model_to_the_bit():
    pipe = Pipe(dit())
    plain = pipe()
    for rows in ("#" * TOTAL, ("#" * TOTAL,) * MODULES):
        with omnicache.cache(pipe, "learning-to-cache", schedule=rows) as run:
            assert torch.equal(pipe(), plain)
        assert run.computed == "#" * TOTAL


@pytest.mark.parametrize("guidance", ["none", "batched", "calls"])
def test_all_zeros_at_every_second_step_is_fora_with_an_interval_of_two(guidance):
    pipe = Pipe(dit())
    with omnicache.cache(pipe, "fora", interval=2, count="up") as fora:
        wanted = pipe(guidance=guidance)
    marks = "".join("." if n in second_steps(TOTAL) else "#" for n in range(TOTAL))
    for rows in (marks, (marks,) * MODULES):
        with omnicache.cache(pipe, "learning-to-cache", schedule=rows) as run:
            assert torch.equal(pipe(guidance=guidance), wanted)
        assert run.computed == fora.computed == "#." * (TOTAL // 2)


@pytest.mark.parametrize(("total", "steps"), [(10, (1, 3, 5, 7, 9)), (7, (2, 4, 6)), (2, (1,)), (1, ())])
def test_full_steps_are_odd_counted_down_and_the_first_is_computed(total, steps):
    assert second_steps(total) == steps
    assert all((total - 1 - n) % 2 == 0 and n > 0 for n in steps)


def test_module_calls_are_those_of_full_steps_and_of_the_table():
    pipe, names = Pipe(dit()), [f"transformer_blocks.{i}.{part}" for i in range(3) for part in ("attn1", "ff")]
    with omnicache.cache(pipe, "learning-to-cache", schedule=ROWS), counted(pipe.model) as calls:
        pipe()
    assert [calls[n] for n in names] == [row.count("#") for row in ROWS]
    cached = second_steps(TOTAL)
    full = (TOTAL - len(cached)) * MODULES
    assert sum(calls[n] for n in names) == full + sum(row[n] == "#" for row in ROWS for n in cached)


def test_the_table_gives_what_the_soft_mix_gives_with_gates_of_nought_and_one():
    pipe, found, cached = Pipe(dit()), {}, {}
    loop = Loop(pipe)
    loop.measure({})
    modules = [s.modules[0] for s in gated_sites("learning-to-cache", pipe.model)]
    hard = {n: torch.tensor([float(row[n] == "#") for row in ROWS]) for n in second_steps(TOTAL)}
    with Mix(pipe.model, modules).attached() as mix:
        in_pairs(loop, {}, mix, lambda n: lambda i, _: hard[n][i], lambda n, out, truth: found.update({n: out.sample}))
    states = {}
    hook = pipe.model.register_forward_pre_hook(lambda m, a, k: states.update({len(states): (a, k)}), with_kwargs=True)
    pipe()
    hook.remove()
    with omnicache.cache(pipe, "learning-to-cache", schedule=ROWS), torch.no_grad():
        pipe.scheduler.set_timesteps(TOTAL)
        for n, t in enumerate(pipe.scheduler.timesteps):
            args, kwargs = states[n]  # the uncached path, on which the mix was made
            cached[n] = pipe.model(*args, **kwargs).sample
            pipe.scheduler.step(cached[n][:, :4], t, args[0])
    for n, out in found.items():
        torch.testing.assert_close(cached[n], out.detach(), rtol=1e-5, atol=1e-6)
    assert not torch.equal(cached[1], cached[0])


def test_rows_that_are_alike_share_a_policy_and_full_ones_have_none():
    plan = learning_to_cache(schedule=ROWS)
    assert [p.where.index for p in plan.policies] == [(0, 3), (2, 5), (4,)]
    assert learning_to_cache(schedule=ROWS[0]).policies[0].where == Attention() | MLP()
    assert all(isinstance(p.when, Table) for p in plan.policies)


@pytest.mark.parametrize("rows", ["", (), ("#.", "#"), ("#x",), ("", "")])
def test_what_is_no_table_is_refused(rows):
    with pytest.raises(omnicache.OmniCacheError, match=r"fitted schedule.*omnicache\.calibrate"):
        learning_to_cache(schedule=rows)


def test_a_table_for_another_number_of_modules_is_refused():
    for model in (dit(layers=2), dit(layers=4), sd3()):
        pipe = Pipe(model)
        with pytest.raises(omnicache.OmniCacheError, match=rf"6 modules.*{type(model).__name__} has \d+"):
            omnicache.enable(pipe, "learning-to-cache", schedule=ROWS)


def test_a_u_net_is_governed_by_one_word():
    pipe = Pipe(text_unet())
    with omnicache.cache(pipe, "learning-to-cache", schedule="#." * 5) as run:
        pipe()
    assert set(run.computed) == {"#", "."}


def test_more_than_every_second_step_cannot_be_asked_for():
    with pytest.raises(omnicache.OmniCacheError, match="at most can be reused"):
        omnicache.calibrate(Pipe(dit()), [1], "learning-to-cache", progress=False, num_inference_steps=7, reuse=0.45)
