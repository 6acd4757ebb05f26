"""Gates are really learned: the loss falls, what comes out is better than chance, and the model is left as it was."""

from __future__ import annotations

import functools
import random
import statistics
import time
from typing import Any

import pytest
import torch
from tests.tiny import Pipe, built, dit

import omnicache
from omnicache.calibrate.gates.loop import Loop, redrawn
from omnicache.calibrate.gates.mix import Mix
from omnicache.calibrate.gates.modules import gated_sites
from omnicache.calibrate.gates.pairs import second_steps
from omnicache.calibrate.gates.penalty import Penalty
from omnicache.calibrate.gates.rounds import Rounds
from omnicache.calibrate.gates.table import TableGates
from omnicache.plan import Plan

TOTAL = 10
CALL = {"num_inference_steps": TOTAL, "guidance_scale": 2.0, "output_type": "pt"}
REUSE = {"learning-to-cache": 0.25, "harmonica": 0.4, "lazydit": 0.25}


@functools.cache
def pipeline() -> Any:
    return Pipe("dit", model=built(dit)).pipeline()


@functools.cache
def fitted(method: str) -> Plan:
    options = {"iterations": 16, "reuse": REUSE[method], "minutes": 5.0}
    return omnicache.calibrate(pipeline(), [1, 2], method, progress=False, **options, **CALL)


def strayed(plan: Plan | None) -> torch.Tensor:
    """Pictures of a class and noise that the fit has not seen."""
    seed = torch.Generator().manual_seed(99)
    with omnicache.cache(pipeline(), plan or "none"):
        return pipeline()(class_labels=[7, 8], generator=seed, **CALL).images


def state_of(pipe: Any) -> Any:
    hooks = {n: dict(m.__dict__) for n, m in pipe.transformer.named_modules()}
    return hooks, dict(pipe.scheduler.__dict__).keys(), [p.requires_grad for p in pipe.transformer.parameters()]


@pytest.mark.parametrize("method", ["learning-to-cache", "harmonica"])
def test_a_fitted_table_beats_a_random_one_of_the_same_laziness(method: str) -> None:
    plan, plain = fitted(method), strayed(None)
    rows = plan.options["schedule"]
    lazy = sum(row.count(".") for row in rows)
    assert lazy == round(REUSE[method] * TOTAL * len(rows))
    gated = second_steps(TOTAL) if method == "learning-to-cache" else range(1, TOTAL)
    cells = [(m, n) for m in range(len(rows)) for n in gated]
    assert all((m, n) in cells for m, row in enumerate(rows) for n, mark in enumerate(row) if mark == ".")

    def error(rows: Any) -> float:
        return float((strayed(omnicache.methods()[method].plan(schedule=rows)) - plain).square().mean())

    others = []
    for seed in range(5):
        chosen = set(random.Random(seed).sample(cells, lazy))
        others.append(error(tuple("".join("." if (m, n) in chosen else "#" for n in range(TOTAL)) for m in range(len(rows)))))
    assert error(rows) < 0.5 * statistics.median(others)


@pytest.mark.parametrize("method", REUSE)
def test_the_loss_falls(method: str) -> None:
    """Under a price that stays, and from the same noise on."""
    price = fitted(method).measured["penalty"]
    options = {"iterations": 12, "penalty": price, "reuse": REUSE[method]}
    loss = omnicache.calibrate(pipeline(), [1], method, progress=False, **options, **CALL).measured["loss"]
    assert len(loss) == 12
    assert statistics.mean(loss[-3:]) < 0.9 * statistics.mean(loss[:2])


def test_a_lazy_gate_reuses_the_share_that_was_asked_for() -> None:
    plan = fitted("lazydit")
    assert plan.measured["reuse"] == pytest.approx(REUSE["lazydit"], abs=0.03)
    plain = strayed(None)
    every = omnicache.methods()["learning-to-cache"].plan(schedule=plan.options["schedule"])
    assert (strayed(plan) - plain).square().mean() < 0.5 * (strayed(every) - plain).square().mean()


def test_a_fit_repeats_itself_and_leaves_nothing_behind() -> None:
    before, plain = state_of(pipeline()), strayed(None)
    options = {"iterations": 2, "seed": 3, "reuse": 0.2}
    one, other = (omnicache.calibrate(pipeline(), [1], "learning-to-cache", progress=False, **options, **CALL) for _ in range(2))
    assert one.options == other.options
    assert one.measured["gates"] == other.measured["gates"]
    assert state_of(pipeline()) == before
    assert torch.equal(strayed(None), plain)


@pytest.mark.parametrize("wanting", [False, True])
def test_the_mix_is_removed_to_the_bit_also_after_an_exception(wanting: bool) -> None:
    model = built(dit).requires_grad_(wanting)
    before = {n: dict(m.__dict__) for n, m in model.named_modules()}
    modules = [s.modules[0] for s in gated_sites("harmonica", model)]

    def broken(i: int, bound: Any) -> torch.Tensor:
        raise RuntimeError("midway")

    given = {"timestep": torch.zeros(1), "class_labels": torch.zeros(1, dtype=torch.long)}
    with Mix(model, modules).attached() as mix:
        assert not any(p.requires_grad for p in model.parameters())
        with mix.keeping():
            model(torch.zeros(1, 4, 8, 8), **given)
        with pytest.raises(RuntimeError, match="midway"), mix.mixing(broken):
            model(torch.zeros(1, 4, 8, 8), **given)
    assert {n: dict(m.__dict__) for n, m in model.named_modules()} == before
    assert all(p.requires_grad == wanting for p in model.parameters())
    assert torch.is_grad_enabled()


def test_a_mix_is_weighted_by_sample_or_by_one_number() -> None:
    layer = torch.nn.Linear(2, 2)
    with Mix(layer, [layer]).attached() as mix:
        with mix.keeping():
            old = layer(torch.ones(3, 2)).detach()
        x = torch.arange(6.0).view(3, 2)
        new = layer(x).detach()
        w = torch.tensor([0.0, 0.25, 1.0])
        with mix.mixing(lambda i, bound: w):
            torch.testing.assert_close(layer(x), w[:, None] * new + (1 - w[:, None]) * old)
        with mix.mixing(lambda i, bound: w[1]):
            torch.testing.assert_close(layer(x), 0.25 * new + 0.75 * old)
        with mix.mixing(lambda i, bound: w[0]):
            assert torch.equal(layer(x[:2]), new[:2]), "of another shape nothing is kept"


def test_the_price_follows_what_is_computed() -> None:
    price = Penalty(None, 0.25)
    price.begin(torch.arange(1.0, 9.0))
    assert 6 <= price.price <= 8
    before = price.price
    price.follow(0.5, 10)
    assert price.price > before
    price.follow(0.1, 10)
    price.follow(0.1, 10)
    assert price.price < before
    given = Penalty(1e-6, 0.25)
    given.begin(torch.ones(3))
    given.follow(0.9, 10)
    assert given.price == 1e-6


def test_tables_take_the_lowest_gates_or_those_under_a_threshold() -> None:
    gates = TableGates((1, 3), 2)
    gates.logits[1].data = torch.tensor([-3.0, 1.0])
    gates.logits[3].data = torch.tensor([0.5, -4.0])
    assert gates.schedule(4, 0.25, None) == ("#.##", "###.")
    assert gates.schedule(4, 0.375, None) == ("#.#.", "###.")
    assert gates.schedule(4, 0.25, 0.02) == ("####", "###.")
    assert gates.schedule(4, 0.25, 1.0) == ("#.#.", "#.#.")


def test_minutes_end_a_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def take(seconds: float) -> None:
        now[0] += seconds

    rounds = Rounds(1000, 1.0, progress=False)
    rounds.first(lambda: take(6.0))
    assert rounds.count == 9
    assert rounds.rate == 1.0
    assert rounds.spare(3, 2.0) == 1
    assert rounds.count == 7
    assert sum(1 for _ in rounds if take(30.0) is None) == 2, "slower than the first was"


def test_a_loop_ends_before_anything_is_decoded() -> None:
    pipe = pipeline()
    loop, seen = Loop(pipe), []
    call = {"class_labels": [1], "generator": torch.Generator().manual_seed(0), **CALL}
    assert loop.measure(call) == TOTAL
    hook = pipe.vae.decoder.register_forward_hook(lambda *_: seen.append("decoded"))
    loop.run(redrawn(call, 5), lambda step, number, evaluate: seen.append((step, number)) or evaluate())
    hook.remove()
    assert seen == [(n, 0) for n in range(TOTAL)]
    assert redrawn(call, 5)["generator"].initial_seed() == 5
    assert [g.initial_seed() for g in redrawn({"generator": [torch.Generator()] * 2}, 2)["generator"]] == [2018, 2019]
