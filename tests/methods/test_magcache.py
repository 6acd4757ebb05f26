"""MagCache (arXiv 2506.09045): the tests of its reference."""

import pytest
import torch

import omnicache
from omnicache.errors import OmniCacheError
from omnicache.methods.magcache import RELEASED, magcache

from .tiny import Curves, Pipe, dit, strip


def skipped(total: int = 28, **options) -> list[int]:
    marks = strip(magcache(**options).policies[0].when, total)
    return [i for i, mark in enumerate(marks) if mark == "."]


def test_the_released_settings_skip_the_steps_of_the_reference():
    flux = [3, 4, 6, 7, 8, 10, 12, 13, 14, 15, 16, 18, 19, 20, 21, 22, 24, 25, 27]
    assert skipped(model="flux.1-dev") == flux
    ported = {"threshold": 0.06, "longest": 3, "retain": 0.2, "forced": ()}
    assert skipped(model="flux.1-dev", **ported) == [6, 8, 10, 11, 12, 14, 15, 16, 18, 19, 20, 22, 23, 25]
    wan = skipped(50, model="wan2.1-t2v-1.3b", longest=2)
    assert len(wan) == 25 and wan[:6] == [10, 11, 13, 14, 16, 17] and wan[-3:] == [43, 45, 47]
    assert len(skipped(50, model="wan2.1-t2v-1.3b")) == 29
    assert len(skipped(50, model="wan2.1-t2v-1.3b", threshold=0.24, longest=6)) == 32
    assert len(skipped(50, model="hunyuanvideo", threshold=0.12, longest=4)) == 28
    assert len(skipped(50, model="hunyuanvideo")) == 31


def test_ratios_of_one_are_limited_by_the_longest_run_alone():
    marks = strip(magcache(ratios=(1.0,) * 12, longest=2, retain=0.0).policies[0].when, 12)
    assert marks == "#..#..#..#.."


def test_another_length_takes_the_nearest_ratio():
    """Of ``round(i * 3 / 6)``, halves to the even one: a run of 7 takes the ratios 0, 0, 1, 2, 2, 2, 3 of 4."""
    doubled = magcache(ratios=(1.0, 1.0, 2.0, 1.0), threshold=0.5, longest=9, retain=0.0).policies[0].when
    assert strip(doubled, 4) == "#.#."
    assert strip(doubled, 7) == "#..###."
    assert strip(doubled, 2) == "#."
    stretched = magcache(model="flux.1-dev", forced=()).policies[0].when
    assert strip(stretched, 14) == "##..#.....#..."
    assert strip(stretched, 56) == "######.#..#...#...#....#.....#.....#.....#.....#...#..#."


def test_calibration_finds_the_growth_that_was_planted():
    """Every increment is 0.9 times the one before: whatever the tokens are."""
    pipe = Pipe(Curves(lambda t: 0.9 ** ((999 - t) / 100)))
    plan = omnicache.calibrate(pipe, [1, 2], "magcache", progress=False, num_inference_steps=10, dtype=torch.float64)
    assert plan.options["ratios"][1:] == pytest.approx([0.9] * 9, rel=1e-6)
    assert plan.options["ratios"][0] == 1.0


def test_calibration_reuses_the_share_that_was_asked_for():
    pipe = Pipe(dit())
    plan = omnicache.calibrate(pipe, [1], "magcache", progress=False, reuse=0.4, num_inference_steps=10)
    with omnicache.cache(pipe, plan) as run:
        pipe(num_inference_steps=10)
    assert run.computed.count(".") == round(10 * plan.measured["reuse"]) >= 4


def test_without_ratios_it_says_what_to_type_and_known_models_find_theirs():
    with pytest.raises(OmniCacheError, match=r'omnicache.calibrate\(pipe, inputs, "magcache"'):
        omnicache.cache(Pipe(dit()), "magcache")
    entry = omnicache.methods()["magcache"]
    flux = "FluxTransformer2DModel FluxTransformer2DModel/57 in_channels=64 guidance_embeds=True"
    assert entry.plan_for([flux]).options["threshold"] == 0.24
    with pytest.raises(OmniCacheError, match="needs the ratios"):
        entry.plan_for([flux.replace("57", "3")])
    assert all(len(options["ratios"]) in (28, 50) for options in RELEASED.values())


def test_what_is_out_of_range_is_refused_in_the_methods_words():
    for options, why in (({"forced": (-3,)}, "magcache: option forced"), ({"ratios": (1.0, -0.5)}, "magcache: option ratios")):
        with pytest.raises(OmniCacheError, match=why):
            magcache(**{"ratios": (1.0,), **options})


def test_no_step_waits_for_the_device():
    assert magcache(model="flux.1-dev").policies[0].when.signals == ()


def test_a_run_of_unknown_length_is_computed():
    model = dit()
    with omnicache.cache(model, "magcache", ratios=(1.0,) * 8) as run:
        for i in range(4):
            model(torch.zeros(1, 4, 8, 8), timestep=torch.tensor([900 - i]), class_labels=torch.tensor([1]))
    assert run.computed == "####"
