"""A study of a plan: its figures are of the runs, its sentences of its figures, and what it proposes was tried."""

from __future__ import annotations

import dataclasses
import math
import re
import time
from types import SimpleNamespace

import numpy
import pytest
import torch
from PIL import Image

import omnicache
from omnicache.api import plan_of
from omnicache.granularity import Stack
from omnicache.measure.diagnosis import diagnose
from omnicache.measure.look import relative
from omnicache.measure.made import pictures
from omnicache.measure.origins import origins
from omnicache.measure.psnr import psnr
from omnicache.measure.speed import Timed
from omnicache.measure.study import study
from omnicache.measure.trials import change
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.predictors import Hold, Residual
from omnicache.registry import calibrated
from omnicache.triggers import Table

from ..methods.tiny import Pipe, dit


class Painter(Pipe):
    """Shows three channels of its latents as a picture, and may rest before it begins."""

    rest = 0.0

    def __call__(self, label=1, num_inference_steps=10, generator=None):
        time.sleep(self.rest)
        x = super().__call__(label, num_inference_steps, generator)
        return SimpleNamespace(images=torch.sigmoid(x[:, :3]))


def seed():
    return torch.Generator().manual_seed(0)


def studied(method, pipe=None, inputs=(1, 4), steps=10, **options):
    pipe = pipe or Pipe(dit())
    return pipe, study(pipe, plan_of(method, **options), inputs, {"num_inference_steps": steps}, pairs=2)


def test_latents_are_compared_step_by_step_where_there_are_no_pictures():
    pipe, found = studied("fora", interval=3)
    assert found.psnr is None and [one.label for one in found.drawn] == ["1", "4"]
    plain = pipe(1, 10, seed())
    with omnicache.cache(pipe, "fora", interval=3) as run:
        cached = pipe(1, 10, seed())
    one = found.drawn[0]
    assert math.isclose(one.end, relative(cached, plain), rel_tol=1e-5) and one.errors[-1] == one.end > 0
    first = run.computed.index(".")
    assert one.errors[:first] == [0.0] * first and one.errors[first] > 0
    assert found.errors[-1] == pytest.approx((one.end + found.drawn[1].end) / 2)
    assert found.cache_bytes == run.cache_bytes and 0.2 < found.work < 0.9


def test_pictures_are_compared_in_db():
    _, found = studied("fora", Painter(dit()), interval=3)
    assert len(found.psnr) == 2 and all(10 < db < 100 for db in found.psnr)
    assert found.drawn[0].uncached.shape == (1, 3, 8, 8)
    _, same = studied("none", Painter(dit()))
    assert same.psnr == [100.0, 100.0] and same.errors == [0.0] * 10


def test_fewer_steps_have_no_error_by_step():
    _, found = studied("fewer-steps")
    assert found.errors == [] and found.drawn[0].end > 0 and math.isclose(found.work, 0.5)


def test_times_are_those_of_the_pairs():
    _, found = studied("taylorseer")
    fake = [
        dataclasses.replace(p, without=Timed(2.0, (0.1,) * 10), within=Timed(1.5, tuple(0.1 if m == "#" else 0.01 for m in marks)))
        for p in found.pairs
        for marks in [p.run.computed]
    ]
    found = dataclasses.replace(found, pairs=tuple(fake))
    marks = found.pairs[0].run.computed
    full, reused = marks.count("#"), marks.count(".")
    assert found.whole == {"uncached": 2.0, "cached": 1.5, "speedup": 2 / 1.5, "share": pytest.approx(0.5)}
    assert found.seconds_each == {"uncached": 0.1, "#": 0.1, ".": 0.01}
    assert found.speedup == pytest.approx(1 / (0.1 * full + 0.01 * reused))
    inside = found.seconds_in
    assert inside["uncached"] == {"#": pytest.approx(1.0), "rest": pytest.approx(1.0)}
    assert inside["cached"]["."] == pytest.approx(0.01 * reused)
    assert sum(inside["cached"].values()) == pytest.approx(1.5)


def test_what_lies_outside_of_the_denoiser_bounds_what_a_cache_can_do():
    pipe = Painter(dit())
    pipe.rest = 0.2
    _, found = studied("taylorseer", pipe, inputs=[1])
    said = " ".join(diagnose(pipe, found).speed)
    share, bound = re.search(
        r"It takes (\d+)% of an uncached call, so no cache can make the whole call more than ([\d.]+) times", said
    ).groups()
    assert int(share) < 60 and float(bound) == pytest.approx(1 / (1 - found.whole["share"]), abs=0.06)


def test_each_part_of_a_run_is_measured_by_itself():
    marks = "##..#.#..#"
    plan = Plan("by hand", (Policy(Table(marks), Stack(), Residual(Hold())),))
    pipe = Pipe(dit())
    found = study(pipe, plan, [1], {"num_inference_steps": 10}, pairs=1)
    parts = origins(pipe, found)
    assert [str(p) for p in parts] == ["3 to 4", "6", "8 to 9"]
    plain = pipe(1, 10, seed())
    for part in parts:
        alone = "".join(m if part.first <= i <= part.last else "#" for i, m in enumerate(marks))
        with omnicache.cache(pipe, Policy(Table(alone), Stack(), Residual(Hold()))):
            assert part.error == pytest.approx(relative(pipe(1, 10, seed()), plain), rel=1e-5)
    said = " ".join(diagnose(pipe, found).likeness)
    assert f"only in step 6, {parts[1].error / found.drawn[0].end:.0%}" in said


def test_plans_that_were_fitted_to_their_schedule_have_no_parts():
    pipe = Pipe(dit())
    call = {"num_inference_steps": 10}
    plan = omnicache.calibrate(pipe, [1], "magcache", progress=False, **call)
    assert calibrated(plan) and calibrated(plan + plan_of("tomesd")) and calibrated(plan.with_measured(tuned={}))
    assert origins(pipe, study(pipe, plan, [1], call, pairs=1)) == [] and change(plan, gentler=True) is None


def test_a_plan_that_a_search_has_chosen_and_nothing_was_fitted_for_has_parts_and_a_next_setting():
    pipe = Pipe(dit())
    plan = dataclasses.replace(plan_of("fora", interval=4), made_for={"num_inference_steps": 10}, measured={"tuned": {}})
    assert not calibrated(plan) and not calibrated(plan_of("teacache", threshold=0.2))
    assert origins(pipe, study(pipe, plan, [1], {"num_inference_steps": 10}, pairs=1))
    assert change(plan, gentler=True) == {"interval": 3}


def test_the_next_setting_is_gentler_or_bolder_and_was_tried():
    assert change(plan_of("fora", interval=4), gentler=True) == {"interval": 3}
    assert change(plan_of("fora", interval=4), gentler=False) == {"interval": 5}
    assert change(plan_of("fora", interval=2), gentler=True) is None
    assert change(plan_of("teacache", threshold=0.3), gentler=True) == {"threshold": 0.2}
    assert change(plan_of("none"), gentler=True) is None
    pipe, found = studied("fora", Painter(dit()), interval=5, inputs=[1])
    told = diagnose(pipe, found)
    gentler = found.psnr[0] < 30
    interval = 4 if gentler else 7
    assert told.tried is not None and told.tried.words == f"interval={interval}"
    assert str(told.tried) in (told.likeness if gentler else told.speed)
    with omnicache.cache(pipe, "fora", interval=interval):
        made = pipe(1, 10, seed()).images
    assert told.tried.psnr == pytest.approx(float(psnr(made, pipe(1, 10, seed()).images)), abs=1e-3)


def test_where_no_other_setting_is_known_a_search_is_proposed():
    pipe, found = studied("fora", Painter(dit()), interval=2, inputs=[1])
    drawn = (dataclasses.replace(found.drawn[0], psnr=20.0),)
    told = diagnose(pipe, dataclasses.replace(found, drawn=drawn))
    assert told.tried is None
    search = "omnicache tune PIPELINE --psnr 30 --steps 10 --out tuned.plan.json"
    assert told.likeness[-1] == f"No gentler setting of fora is known; search: {search}"


def test_it_says_on_which_side_of_the_bar_the_pictures_are():
    pipe, found = studied("fora", Painter(dit()), interval=2)

    def said(*psnr):
        drawn = tuple(dataclasses.replace(one, psnr=db) for one, db in zip(found.drawn, psnr, strict=True))
        return diagnose(pipe, dataclasses.replace(found, drawn=drawn)).likeness[0]

    assert said(20.0, 24.0).endswith("at 22.0 dB (20.0 to 24.0 on 2 inputs): below 30 dB people can tell them apart.")
    assert said(31.0, 35.0).endswith("at 33.0 dB (31.0 to 35.0 on 2 inputs): from 30 dB on they are hard to tell apart.")
    assert "(30.0 to identical on 2 inputs)" in said(30.0, 100.0)
    assert said(100.0, 100.0) == "Pictures are identical to the uncached ones, on all 2 inputs."


def test_what_pipelines_return_as_pictures():
    drawn = torch.rand(2, 3, 4, 6)
    assert torch.equal(pictures(SimpleNamespace(images=drawn)), drawn) and torch.equal(pictures((drawn,)), drawn)
    assert torch.allclose(pictures(drawn.permute(0, 2, 3, 1).numpy()), drawn)
    assert pictures(SimpleNamespace(frames=numpy.zeros((1, 5, 4, 6, 3), dtype="uint8"))).shape == (1, 5, 3, 4, 6)
    red = Image.new("RGB", (6, 4), "red")
    assert pictures(SimpleNamespace(images=[red, red])).shape == (2, 3, 4, 6)
    assert pictures(SimpleNamespace(frames=[[red, red, red]])).shape == (1, 3, 3, 4, 6)
    for other in (torch.rand(1, 4, 8, 8), 9 * drawn, torch.full((1, 3, 4, 4), math.nan), "words", SimpleNamespace(audios=[1.0])):
        assert pictures(other) is None
