"""Plans that decide layer by layer: what they compute, what they give, and how they are made."""

import random

import pytest
import torch

import omnicache
from omnicache.calibrate.layered import SOLVERS, calibrate_layered, refined, remeasure
from omnicache.calibrate.layers.budget import Budget
from omnicache.calibrate.layers.graph import graph
from omnicache.calibrate.layers.profile import Profile
from omnicache.calibrate.layers.refine import legalise, refine
from omnicache.calibrate.layers.timing import Timing
from omnicache.errors import OmniCacheError
from omnicache.granularity import Blocks, Layers, Stack
from omnicache.models import discover
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.predictors import Hold, Residual
from omnicache.triggers import Table

from .tiny import Pipe, counted, dit, latte, sd3, text_unet

ROWS = ("##.#..#.#.", "##.#..#.#.", "#.##.#.##.")


def made(seconds=(1.0, 1.0, 1.0), steps=10, interval=5, seed=0) -> Profile:
    """A profile that nobody measured."""
    draw = torch.Generator().manual_seed(seed)
    errors = torch.rand(len(seconds), steps, 1, 6, generator=draw)
    errors[:, ::interval] = 0
    together = 0.5 * errors.sum(0)[:, None] * torch.arange(1, interval)[None, :, None, None]
    return Profile(Timing(seconds, tuple(0.95 * s for s in seconds), sum(seconds)), errors, together, interval, 1, steps)


# --- what runs


@pytest.mark.parametrize("guidance", ["none", "batched", "calls"])
def test_each_layer_runs_at_its_own_steps(guidance):
    pipe = Pipe(dit(layers=3))
    with omnicache.cache(pipe, "omnicache-layered", schedule=ROWS), counted(pipe.model) as calls:
        pipe(guidance=guidance)
    times = 2 if guidance == "calls" else 1
    assert [calls[f"transformer_blocks.{n}.attn1"] for n in range(3)] == [times * row.count("#") for row in ROWS]


@pytest.mark.parametrize("model", [lambda: dit(layers=3), lambda: sd3(layers=3)], ids=["dit", "sd3"])
def test_layers_of_equal_rows_are_one_function(model):
    pipe = Pipe(model())
    alone = tuple(Policy(Table(row), Layers(n, n + 1), Residual(Hold())) for n, row in enumerate(ROWS))
    with omnicache.cache(pipe, Plan("alone", alone)) as each:
        one_by_one = pipe()
    with omnicache.cache(pipe, "omnicache-layered", schedule=ROWS) as run:
        together = pipe()
    assert [p.where for p in run.plan.policies] == [Layers(0, 2), Layers(2, 3)]
    torch.testing.assert_close(together, one_by_one, rtol=1e-4, atol=1e-5)
    assert run.cache_bytes < each.cache_bytes


@pytest.mark.parametrize("model", [dit, sd3, latte], ids=["dit", "sd3", "latte"])
@pytest.mark.parametrize("rows", [ROWS[0], (ROWS[0],) * 4], ids=["one word", "a word each"])
def test_whole_rows_are_the_stack_to_the_bit_and_to_the_byte(model, rows):
    layers = len(discover(model()).sites("block"))
    rows = rows if isinstance(rows, str) else rows[:1] * layers
    pipe = Pipe(model())
    shape = {"shape": (4, 3, 8, 8)} if model is latte else {}
    with omnicache.cache(pipe, Policy(Table(ROWS[0]), Stack(), Residual(Hold()))) as stack:
        wanted = pipe(**shape)
    with omnicache.cache(pipe, "omnicache-layered", schedule=rows) as run:
        assert torch.equal(pipe(**shape), wanted)
    assert run.cache_bytes == stack.cache_bytes
    assert run.computed == stack.computed == ROWS[0]


def test_layers_that_are_always_computed_are_left_alone():
    pipe = Pipe(dit(layers=3))
    with omnicache.cache(pipe, "omnicache-layered", schedule=("#" * 10, ROWS[0], "#" * 10)) as run:
        pipe()
    assert [p.where for p in run.plan.policies] == [Layers(1, 2)]
    assert "o" in run.computed or run.computed == ROWS[0]


@pytest.mark.parametrize("rows", ["#" * 10, ("#" * 10,) * 3])
def test_off_is_no_cache_to_the_bit(rows):
    pipe = Pipe(dit(layers=3))
    plain = pipe()
    with omnicache.cache(pipe, "omnicache-layered", schedule=rows):
        assert torch.equal(pipe(), plain)


@pytest.mark.parametrize("rows", ["", (), ("#.", "#"), ("#x",), ("", "")])
def test_a_schedule_that_is_none_is_refused(rows):
    with pytest.raises(OmniCacheError, match="omnicache-layered needs a calibrated schedule of each layer"):
        omnicache.methods()["omnicache-layered"].plan(schedule=rows)


def test_layers_of_a_u_net_are_reused_where_they_lie():
    pipe = Pipe(text_unet(levels=2))
    layers = discover(pipe.model).sites("layer")
    plain = pipe()
    for n, site in enumerate(layers):
        rows = tuple("##.#..#.#." if i == n else "#" * 10 for i in range(len(layers)))
        with omnicache.cache(pipe, "omnicache-layered", schedule=rows), counted(pipe.model) as calls:
            out = pipe()
        assert calls[site.name] == 5
        assert out.isfinite().all()
        assert 0 < float((out - plain).norm() / plain.norm()) < 0.5


def test_places_of_layers():
    model = discover(dit(layers=4))
    assert Layers(1, 2).select(model) == Blocks(1, 2).select(model)
    (joined,) = Layers(1, 3).select(model)
    assert (joined.name, joined.layout) == ("transformer_blocks.1..transformer_blocks.2", "chain")
    assert joined.modules == tuple(model.model.transformer_blocks[1:3])
    assert Layers().select(model) == Layers(0, 4).select(model) == Stack().select(model)
    assert Layers(4, 9).select(model) == ()
    assert len(Layers().select(discover(text_unet(levels=2)))) == 12


# --- how it is made


@pytest.mark.parametrize("solver", [s for s in SOLVERS if s != "whole-steps"])
def test_a_plan_is_made_measured_and_saved(solver, tmp_path):
    pipe, call = Pipe(dit(layers=3)), {"num_inference_steps": 10}
    plan = calibrate_layered(pipe, [1, 2], call, False, solver=solver, speedup=1.6, pairs=2, measured=made())
    rows = plan.options["schedule"]
    assert all(row[0] == row[5] == "#" for row in rows)
    budget = Budget.of(made().lat, 1.6, rest=made().rest)
    cells = [(n, t) for n, row in enumerate(rows) for t, mark in enumerate(row) if mark == "."]
    assert budget.target - 1e-9 <= budget.saved(cells) < budget.target + max(map(max, budget.share))
    assert plan.measured["foreseen_speedup"] == pytest.approx(1 / (1 - budget.saved(cells)))
    assert plan.measured["rows"] == rows
    assert plan.measured["speedup"] > 0
    pictures = []
    for label, seed in ((1, 0), (2, 1)):
        plain = pipe(label, generator=torch.Generator().manual_seed(seed))
        with omnicache.cache(pipe, plan):
            pictures.append((pipe(label, generator=torch.Generator().manual_seed(seed)) - plain).norm() / plain.norm())
    assert plan.measured["error"] == pytest.approx(float(sum(pictures) / 2), rel=1e-4)
    assert omnicache.Plan.load(plan.save(tmp_path / "plan.json")) == plan


def test_of_the_plans_of_all_solvers_the_one_with_the_least_measured_error_is_taken():
    pipe, call = Pipe(dit(layers=3)), {"num_inference_steps": 10}
    found = made()
    plan = calibrate_layered(pipe, [1], call, False, speedup=1.6, pairs=1, measured=found)
    tried = plan.measured["tried"]
    assert set(tried) == set(SOLVERS)
    assert plan.measured["error"] == pytest.approx(min(tried.values()), rel=1e-4)
    assert plan.measured["solver"] == min(tried, key=tried.get)
    alone = calibrate_layered(pipe, [1], call, False, speedup=1.6, pairs=1, measured=found, solver=plan.measured["solver"])
    assert alone.options == plan.options
    whole = calibrate_layered(pipe, [1], call, False, speedup=1.6, pairs=1, measured=found, solver="whole-steps")
    assert len(set(whole.options["schedule"])) == 1
    assert len(whole.policies) == 1


def test_calibrating_from_the_beginning():
    pipe = Pipe(dit(layers=3))
    plain = pipe()
    plan = omnicache.calibrate(
        pipe, [1], "omnicache-layered", progress=False, speedup=1.05, interval=4, horizon=2, num_inference_steps=8
    )
    assert len(plan.options["schedule"]) == 3
    assert any("." in row for row in plan.options["schedule"])
    assert plan.made_for["num_inference_steps"] == 8
    assert plan.measured["error"] > 0
    assert torch.equal(pipe(), plain)
    assert not {"step", "set_timesteps"} & set(vars(pipe.scheduler))
    with pytest.raises(OmniCacheError, match="is an option of calibrating omnicache-layered"):
        omnicache.cache(pipe, "omnicache-layered", speedup=2.0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"speedup": 0.5}, "option speedup: 0.5 is outside"),
        ({"solver": "gready"}, "'gready' is none of"),
        ({"interval": 1}, "option interval: 1 is outside"),
        ({"speedup": 30.0, "measured": made()}, "A speedup of 30 is infeasible: .* it is 4.16, the largest possible"),
        ({"num_inference_steps": 2}, r"2 step\(s\) are too few"),
    ],
)
def test_what_cannot_be_planned_is_refused(options, said):
    with pytest.raises(OmniCacheError, match=said):
        omnicache.calibrate(Pipe(dit(layers=3)), [1], "omnicache-layered", progress=False, **{"num_inference_steps": 10, **options})


def test_what_a_u_net_need_not_compute_is_given_back_to_the_dearest_cells():
    """With the last layer reused everything before it is dead, which saves far more than was asked for."""
    model = discover(text_unet(levels=2))
    layers = len(model.sites("layer"))
    found = made((1.0,) * layers)
    budget = Budget.of(found.lat, 1.1)
    last = [(layers - 1, t) for t in (1, 2, 3, 4, 6, 7)]
    rows = refined(model, found, budget, last)
    dead = [t for t in range(10) if all(row[t] == "." for row in rows)]
    assert len(dead) == 1  # one of the six is enough: a tenth of the work
    assert dead[0] in (1, 2, 3, 4, 6, 7)
    dearest = max(found.loss[layers - 1][t] for _, t in last)
    assert found.loss[layers - 1][dead[0]] < dearest
    assert all(row.count("#") == 9 for row in rows)
    pipe = Pipe(text_unet(levels=2))
    with omnicache.cache(pipe, "omnicache-layered", schedule=rows), counted(pipe.model) as calls:
        pipe()
    assert calls["mid_block"] == 9


@pytest.mark.parametrize("model", [lambda: dit(layers=3), lambda: text_unet(levels=2)], ids=["dit", "unet"])
def test_refining_changes_nothing_to_the_bit_and_calls_no_module_more_often(model):
    pipe, draw, fewer = Pipe(model()), random.Random(0), 0
    nodes, layers = graph(discover(pipe.model))

    def drawn(plan):
        rows = tuple("".join("#" if mark in "Cc" else "." for mark in plan[n]) for n in layers)
        with omnicache.cache(pipe, "omnicache-layered", schedule=rows), counted(pipe.model) as calls:
            return pipe(num_inference_steps=6), calls

    for _ in range(6):
        plan = ["C" + "".join(draw.choice("CCR") if n in layers else "C" for _ in range(5)) for n in range(len(nodes))]
        out, calls = drawn(legalise(plan, 4))
        same, left = drawn(refine(nodes, plan, 4, aligned=False))
        assert torch.equal(same, out)
        assert all(left[name] <= calls[name] for name in left)
        fewer += left.total() < calls.total()
    assert fewer == (6 if pipe.name == "unet" else 0)  # blocks of a transformer add to a stream that is always wanted


def test_the_plan_is_measured_in_turns_with_the_uncached_run():
    pipe = Pipe(dit(layers=3))
    plan = omnicache.methods()["omnicache-layered"].plan(schedule="#" * 10)
    figures = remeasure(pipe, [{"label": 1}], plan, pairs=3)
    assert figures["error"] == 0
    assert 0.2 < figures["speedup"] < 5
