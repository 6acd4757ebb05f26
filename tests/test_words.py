"""A printed plan says first what it is for and what it gains; times and likenesses have the digits that people read."""

from __future__ import annotations

from omnicache.api import plan_of
from omnicache.granularity import Denoiser
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.predictors import Hold
from omnicache.triggers import Table
from omnicache.words import decibels, goal, plain, seconds

MADE_FOR = {
    "model": "DiTTransformer2DModel",
    "parameters": 5729680,
    "guidance_scale": 2.0,
    "num_inference_steps": 8,
    "scheduler": "DDIMScheduler(clip_sample=False)",
    "latents": (4, 16, 16),
}
HELD = {"psnr": {"mean": 31.2, "low": 30.6, "high": 31.9}, "inputs": 2, "speedup": {"median": 4.6, "low": 4.1, "high": 5.2}}


def test_a_tuned_plan_prints_what_it_is_for_and_what_it_reached():
    policy = Policy(Table("#.#..#.."), Denoiser(), Hold(keep=2))
    plan = Plan("omnicache-optimal", (policy,), {"schedule": "#.#..#..", "reuse": 0.6}, made_for=MADE_FOR)
    first, second, third = str(plan.with_measured(tuned={"goal": "psnr=32", "held_out": HELD})).splitlines()
    assert (
        first
        == "omnicache-optimal (reuse=0.6) for DiTTransformer2DModel, 8 steps, guidance 2, DDIMScheduler, latents of 4 × 16 × 16"
    )
    assert second == (
        "  tuned for 32 dB or more: 4.60 times as fast (4.10 to 5.20) and 31.2 dB (30.6 to 31.9) on 2 inputs that it was not "
        "chosen by"
    )
    assert third == "  compute when Table(#.#..#..), at Denoiser, else Hold(2)"


def test_other_plans_print_what_is_known_of_them():
    plan = plan_of("taylorseer", interval=4)
    assert str(plan).startswith(
        "taylorseer (interval=4, warmup=3, order=1, basis=taylor, granularity=stack)\n  compute when First(3) or"
    )
    calibrated = plan.with_measured(speedup=1.5, error=0.2)
    assert "on the inputs of its calibration: 1.50 times as fast, final latents 20.0% off" in str(calibrated)
    assert "  50% of the sampler's steps are run" in str(plan_of("fewer-steps", ratio=0.5))
    assert str(plan + plan_of("omnicache-md")).splitlines()[0].count("granularity=stack") == 1
    assert repr(plan) == f"<Plan {plan}>"


def test_numbers_as_people_write_them():
    written = [seconds(t) for t in (0, 0.0042, 0.042, 0.42, 4.2, 42.0, 420.0)]
    assert written == ["0 s", "4.2 ms", "42 ms", "0.42 s", "4.20 s", "42.0 s", "420 s"]
    assert decibels(100.0) == decibels(float("inf")) == "identical" and decibels(99.9) == "99.9 dB"
    assert goal("speedup=2, psnr=32, memory='1 MB'") == "2 times as fast and 32 dB or more and at most 1 MB kept"


def test_options_that_a_person_gives_are_told_apart_from_what_was_fitted():
    given = {"interval": 4, "basis": "taylor", "correct": True, "threshold": 0.1}
    fitted = {
        "schedule": "#..#",
        "weights": (None, (1.0, 2.0)),
        "maps": {},
        "sampler": "DDIMScheduler(clip_sample=False)",
        "tail": None,
    }
    assert plain({**given, **fitted}) == given
