"""Block Caching (arXiv 2312.03209): the tests that its reference asks for."""

import itertools
import math
import random

import pytest
import torch

import omnicache
from omnicache.calibrate.blocks import lifetimes, profile, smallest
from omnicache.calibrate.gates.loop import Loop
from omnicache.granularity import Transformers
from omnicache.methods.block_caching import block_caching
from omnicache.models import discover
from omnicache.plan import Plan
from omnicache.predictors import ScaleShift
from omnicache.weights import Weights

from .tiny import Curves, Pipe, counted, dit, latte, sd3, text_unet, unet

TOTAL = 10


@pytest.mark.parametrize(("change", "threshold"), [(0.25, 0.5), (0.125, 0.5), (0.5, 0.25), (0.25, 0.0), (1.0, 3.0)])
def test_a_constant_change_gives_the_period_of_the_paper(change, threshold):
    (row,) = lifetimes([[change] * 30], threshold)
    period = math.floor(threshold / change) + 1
    assert row == "".join("#" if n % period == 0 else "." for n in range(30))


def test_a_change_of_a_fifth_and_half_tolerated_is_every_third_step():
    assert lifetimes([[0.2] * 9], 0.5) == ("#..#..#..",)


@pytest.mark.parametrize("seed", range(20))
def test_no_lifetime_gathers_more_than_is_tolerated(seed):
    dice = random.Random(seed)
    found = [[dice.random() for _ in range(40)] for _ in range(3)]
    for threshold in (0.1, 0.7, 2.0):
        for changes, row in zip(found, lifetimes(found, threshold), strict=True):
            gathered = 0.0
            for n, mark in enumerate(row):
                gathered = 0.0 if mark == "#" else gathered + changes[n]
                assert gathered <= threshold
            assert row[0] == "#"


def test_recomputations_do_not_rise_with_the_threshold_where_changes_are_equal():
    counts = [lifetimes([[0.3] * 50], t / 10)[0].count("#") for t in range(40)]
    assert counts == sorted(counts, reverse=True)


def test_what_is_not_known_is_computed():
    assert lifetimes([[0.0, 0.1, math.inf, 0.1]], 0.5) == ("#.#.",)


def test_a_share_finds_its_threshold():
    found = [[0.1 * (1 + n % 4) for n in range(40)], [0.3] * 40]
    for reuse in (0.0, 0.3, 0.7):
        reached = smallest(found, reuse)
        share = sum(r.count(".") for r in lifetimes(found, reached)) / 80
        assert share >= reuse
        assert not reached or sum(r.count(".") for r in lifetimes(found, reached * 0.99)) / 80 <= share


@pytest.mark.parametrize("model", [dit, sd3, latte, text_unet, unet], ids=lambda build: build.__name__)
def test_tolerating_nothing_is_the_plain_model_to_the_bit(model):
    pipe = Pipe(model())
    shape = {"shape": (4, 3, 8, 8)} if model is latte else {}
    plain = pipe(**shape)
    plan = omnicache.calibrate(pipe, [1], "block-caching", progress=False, threshold=0.0, num_inference_steps=TOTAL, **shape)
    assert set(plan.options["schedule"]) == {"#" * TOTAL}
    with omnicache.cache(pipe, plan):
        assert torch.equal(pipe(**shape), plain)


def test_the_profile_is_what_blocks_add_and_is_divided_by_the_present():
    model = Curves(lambda t: 1.0 + t / 1000)  # all blocks add their direction times the curve, whatever they are given
    pipe = Pipe(model, conditions=lambda label: {})
    loop = Loop(pipe)
    found = profile(loop, [{"dtype": torch.float64}], Transformers().select(discover(model)), progress=False)
    times = [float(t) for t in pipe.scheduler.timesteps]
    sizes = [1 + t / 1000 for t in times]
    wanted = [abs(a - b) / b for a, b in itertools.pairwise(sizes)]
    for row in found:
        assert math.isinf(row[0])
        assert row[1:] == pytest.approx(wanted, rel=1e-6)


def test_in_a_u_net_attention_blocks_are_reused_and_resnets_run():
    pipe = Pipe(text_unet())
    sites = Transformers().select(discover(pipe.model))
    assert {type(s.modules[0]).__name__ for s in sites} == {"Transformer2DModel"}
    rows = tuple("#.#.#.#.#." if i % 2 else "#...#...#." for i in range(len(sites)))
    with omnicache.cache(pipe, "block-caching", schedule=rows) as run, counted(pipe.model) as calls:
        pipe()
    assert [calls[s.name] for s in sites] == [row.count("#") for row in rows]
    resnets = [n for n in calls if n.rpartition(".")[0].endswith("resnets")]
    assert {calls[n] for n in resnets} == {TOTAL}
    assert "#" in run.computed and "o" in run.computed


def test_each_block_of_a_transformer_runs_by_its_own_row_and_holds_its_increment():
    pipe, rows = Pipe(dit()), ("#.#.#.#.#.", "##########", "#...#...#.")
    with omnicache.cache(pipe, "block-caching", schedule=rows), counted(pipe.model) as calls:
        pipe()
    assert [calls[f"transformer_blocks.{i}"] for i in range(3)] == [row.count("#") for row in rows]
    whole = "#.#.#.#.#."
    with omnicache.cache(pipe, "fora", interval=2, count="up", granularity="stack"):
        stack = pipe()
    with omnicache.cache(pipe, "block-caching", schedule=(whole,) * 3):
        torch.testing.assert_close(pipe(), stack, rtol=1e-4, atol=1e-5)


def test_the_schedule_is_not_of_the_picture_that_is_drawn():
    pipe = Pipe(dit())
    plan = omnicache.calibrate(pipe, [1, 2], "block-caching", progress=False, threshold=0.3, num_inference_steps=TOTAL)
    strips = []
    for label in (3, 4):
        with omnicache.cache(pipe, plan) as run:
            pipe(label)
        strips.append(run.computed)
    assert strips[0] == strips[1]
    assert set(strips[0]) > {"#"}


def test_a_calibration_leaves_nothing_behind_also_when_it_fails():
    pipe = Pipe(dit())
    before = {n: dict(m.__dict__) for n, m in pipe.model.named_modules()}, dict(pipe.scheduler.__dict__)
    with pytest.raises(TypeError):
        omnicache.calibrate(pipe, [{"label": "no"}], "block-caching", progress=False)
    assert {n: dict(m.__dict__) for n, m in pipe.model.named_modules()} == before[0]
    assert "step" not in pipe.scheduler.__dict__


def test_an_identity_is_plain_caching_to_the_bit():
    pipe, rows = Pipe(dit()), ("#.#.#.#.#.", "#...#...#.", "##.#.#.#.#")
    with omnicache.cache(pipe, "block-caching", schedule=rows):
        wanted = pipe()
    same = torch.stack((torch.ones(TOTAL, 16), torch.zeros(TOTAL, 16)))
    with omnicache.cache(pipe, "block-caching", schedule=rows, fits=((Weights(same),),) * 3):
        assert torch.equal(pipe(), wanted)


def test_scales_and_shifts_make_what_follows_a_line_exact():
    """What each block adds is its direction times a curve of the time, so a scale says all, and a cached run is an uncached one."""
    pipe = Pipe(Curves(lambda t: 1.0 + t / 500, layers=3), conditions=lambda label: {})
    call = {"num_inference_steps": TOTAL, "dtype": torch.float64}
    rows = {"progress": False, "threshold": 2.0, "scale_shift": True}
    plain = pipe(**call)
    plan = omnicache.calibrate(pipe, [1], "block-caching", **rows, **call)
    assert all("." in row for row in plan.options["schedule"])
    with omnicache.cache(pipe, plan):
        fitted = pipe(**call)
    with omnicache.cache(pipe, "block-caching", schedule=plan.options["schedule"]):
        held = pipe(**call)
    assert (fitted - plain).norm() < 1e-4 * (held - plain).norm()


@pytest.mark.parametrize("model", [dit, sd3, text_unet], ids=lambda build: build.__name__)
def test_a_fit_is_nearer_on_the_runs_it_was_fitted_to_and_survives_its_file(model, tmp_path):
    pipe = Pipe(model())
    options = {"progress": False, "threshold": 0.3, "scale_shift": True, "num_inference_steps": TOTAL}
    plan = omnicache.calibrate(pipe, [1], "block-caching", **options)
    assert any("." in row for row in plan.options["schedule"])
    assert Plan.load(plan.save(tmp_path / "a.plan.json")) == plan

    def draw():
        return pipe(1, generator=torch.Generator().manual_seed(0))  # the noise of the calibration

    plain = draw()
    with omnicache.cache(pipe, plan):
        fitted = draw()
    with omnicache.cache(pipe, "block-caching", schedule=plan.options["schedule"]):
        held = draw()
    assert not torch.equal(fitted, held)
    if model is not sd3:  # there each block is nearer, and the picture is as far as before
        assert (fitted - plain).norm() < (held - plain).norm()


def test_fits_must_be_as_many_as_blocks():
    same = (Weights(torch.zeros(2, TOTAL, 16)),)
    for schedule, fits in (("#.#.", (same,)), (("#.", "#."), (same,))):
        with pytest.raises(omnicache.OmniCacheError, match="option fits"):
            block_caching(schedule=schedule, fits=fits)
    with pytest.raises(omnicache.OmniCacheError, match="scales and shifts"):
        ScaleShift((Weights(torch.zeros(3)),))
