"""FEB-Cache (arXiv 2503.07120): the tests that its reference asks for, and how its table is made."""

import math

import pytest
import torch

import omnicache
from omnicache.calibrate.stages import build, saved
from omnicache.correctors import NoiseScaling
from omnicache.errors import OmniCacheError
from omnicache.methods.feb_cache import RELEASED, feb_cache
from omnicache.plan import Plan

from .tiny import Pipe, counted, ddim, dit, sd3, text_unet, unet

T = 10
TIMES = [1 - i / T for i in range(T)]


@pytest.mark.parametrize("options", [{"scaling": "none"}, {"early": 1.0, "late": 1.0}])
def test_1_without_reuse_and_scaling_it_is_no_cache(options):
    pipe = Pipe(dit())
    plain = pipe(num_inference_steps=T)
    with omnicache.cache(pipe, "feb-cache", schedule="#" * T, **options):
        assert torch.equal(pipe(num_inference_steps=T), plain)
    with omnicache.cache(pipe, "feb-cache", schedule="#" * T):
        assert not torch.equal(pipe(num_inference_steps=T), plain)


@pytest.mark.parametrize("guidance", ["none", "batched", "calls"])
@pytest.mark.parametrize(("scaling", "factor"), [("paper", NoiseScaling().at), ("released", lambda time: 1 / 0.965)])
def test_2_what_guidance_makes_of_the_noise_is_scaled_at_every_step(guidance, scaling, factor):
    """The model predicts a variance, too, which this loop hands to the scheduler with the noise."""

    class Wide(type(ddim())):
        def step(self, model_output, timestep, sample, **more):
            given.append((float(timestep), model_output))
            return super().step(model_output[:, :4], timestep, sample, **more)

    class Keeping(Pipe):
        def evaluate(self, x, t, conditions):
            out.append(super().evaluate(x, t, conditions))
            return out[-1]

    given, out = [], []
    pipe = Keeping(dit(out_channels=8), Wide(clip_sample=False))
    with omnicache.cache(pipe, "feb-cache", schedule="#." * 5, scaling=scaling):
        pipe(num_inference_steps=T, guidance=guidance)
    for i, (t, got) in enumerate(given):
        if guidance == "none":
            guided = out[i]
        else:
            none, cond = out[i].chunk(2) if guidance == "batched" else out[2 * i : 2 * i + 2]
            guided = none + 2.0 * (cond - none)
        torch.testing.assert_close(got[:, :4], factor(t / 1000) * guided[:, :4])
        torch.testing.assert_close(got[:, 4:], guided[:, 4:])


@pytest.mark.parametrize("error", ["relative", "norm"])
def test_3_no_error_allowed_is_no_reuse_and_any_error_is_all_of_it(error):
    pipe = Pipe(dit())
    call = {"progress": False, "num_inference_steps": 6, "error": error, "longest": 6, "scaling": "none"}
    assert omnicache.calibrate(pipe, [1], "feb-cache", delta=0.0, **call).options["schedule"] == "######"
    assert omnicache.calibrate(pipe, [1], "feb-cache", delta=math.inf, **call).options["schedule"] == "#....."


@pytest.mark.parametrize("make", [dit, sd3, text_unet])
def test_4_each_state_calls_what_it_computes(make):
    model = make()
    pipe = Pipe(model)
    with omnicache.cache(pipe, "feb-cache", schedule="#ma.#ma.aa") as run, counted(model) as calls:
        pipe(num_inference_steps=T)
    kinds = {m: type(module).__name__ for m, module in model.named_modules()}
    attention = [calls[n] for n, kind in kinds.items() if kind in ("Attention", "JointAttention")]
    mlp = [calls[n] for n, kind in kinds.items() if kind == "FeedForward"]
    assert attention and set(attention) == {4}  # "#", "m", "#", "m"
    assert mlp and set(mlp) == {6}  # "#", "a", "#", "a", "a", "a"
    assert run.computed == "#oo.#oo.oo"


def test_a_model_without_mlps_is_refused():
    with pytest.raises(OmniCacheError, match="feb-cache finds nothing to cache in UNet2DModel"):
        omnicache.enable(Pipe(unet()), "feb-cache")


def test_values_that_are_reused_are_those_last_computed():
    """Attention that was computed at a step where the MLP was reused is the newer one from there on."""
    model, seen = dit(layers=1), []
    pipe = Pipe(model)
    attention, mlp = model.transformer_blocks[0].attn1, model.transformer_blocks[0].ff
    for name, module in (("attention", attention), ("mlp", mlp)):
        module.register_forward_hook(lambda *_, name=name: seen.append((name, len(steps))))
    steps = []
    with omnicache.cache(pipe, "feb-cache", schedule="#ma.######") as run:
        model.register_forward_hook(lambda *_: steps.append(1))
        pipe(num_inference_steps=T)
    assert [s for s in seen if s[1] < 4] == [("attention", 0), ("mlp", 0), ("attention", 1), ("mlp", 2)]
    assert run.computed[:4] == "#oo."


def test_the_released_table():
    """16 of 50 steps, all in the late half; it counts them from the last."""
    late = [49 - i for i, mark in enumerate(RELEASED) if mark == "."]
    assert sorted(late) == [1, 2, 4, 5, 7, 8, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27]
    assert len(RELEASED) == 50 and set(RELEASED) == {"#", "."}
    assert round(50 / RELEASED.count("#"), 2) == 1.47
    pipe = Pipe(dit())
    with omnicache.cache(pipe, "feb-cache") as run:
        pipe(num_inference_steps=50)
    assert run.computed == RELEASED


def test_a_run_of_another_length_is_left_alone_and_says_so():
    pipe = Pipe(dit())
    plain = pipe(num_inference_steps=20)
    with omnicache.cache(pipe, "feb-cache") as run, pytest.warns(UserWarning, match="for 50 steps and this run has 20"):
        assert torch.equal(pipe(num_inference_steps=20), plain)  # not scaled either
    assert set(run.computed) == {"#"}


@pytest.mark.parametrize("schedule", ["", "##x.", "01"])
def test_what_is_no_table_is_refused(schedule):
    with pytest.raises(OmniCacheError, match="feb-cache: option schedule"):
        feb_cache(schedule=schedule)


# --- the table -------------------------------------------------------------------------------------------------------------


def errors(both, one, samples=1):
    """Errors that do not change from step to step, by age from 1 on."""
    steps = range(T)

    def of(ages):
        return [{(age, i): e for age, e in enumerate(ages, 1) for i in steps} for _ in range(samples)]

    return {".": of(both), "m": of(one), "a": of(one)}


def flat(limit):
    return lambda time: limit


def test_early_the_mlp_is_reused_and_late_attention_where_both_together_err_too_much():
    assert build(errors([9.0], [0.1, 9.0]), TIMES, flat(0.5), 0.4) == "#m#m#m#a#a"


def test_values_grow_old_until_they_err_too_much():
    """After a reuse they are two steps old; what is older than measured is not reused."""
    assert build(errors([0.1, 0.3, 0.6], [9.0]), TIMES, flat(0.5), 0.4) == "#..#..#..#"
    assert build(errors([0.1, 0.3, 0.6], [9.0]), TIMES, flat(0.7), 0.4) == "#...#...#."


def test_of_modules_of_unlike_age_the_older_one_counts():
    """At step 1 only the MLP may be reused, so at step 2 it is two steps old, and both together err as values of that age."""
    found = errors([0.1, 9.0], [0.1, 0.2, 9.0])
    found["."][0][1, 1] = 9.0
    assert build(found, TIMES, flat(0.5), 0.4).startswith("#mm#.")


def test_more_is_allowed_early():
    found = errors([0.3], [9.0])
    marks = build(found, TIMES, lambda time: 0.19 * (1 + time), 0.4)
    assert [i for i, m in enumerate(marks) if m == "."] == [1, 3]  # 0.19 (1 + t) is above 0.3 down to t = 0.58


def test_the_samples_vote_and_a_tie_saves_less():
    found = {s: errors([0.1], [0.1])["."] * 2 for s in (".", "m", "a")}
    one = errors([9.0], [9.0])["."]
    both = {s: [*v, *one] for s, v in found.items()}
    assert build(both, TIMES, flat(0.5), 0.4)[1] == "."
    assert build({s: [*v, *one, *one] for s, v in found.items()}, TIMES, flat(0.5), 0.4)[1] == "#"


def test_half_is_saved_where_one_of_two_is_reused():
    assert saved("#m.a") == 0.5


def test_calibration_meets_the_share_that_is_asked_for():
    pipe = Pipe(dit())
    plan = omnicache.calibrate(pipe, [1, 2], "feb-cache", progress=False, num_inference_steps=T, reuse=0.4)
    assert 0.4 <= plan.measured["saved"] <= 0.65
    assert Plan.from_json(plan.to_json()) == plan
    with omnicache.cache(pipe, plan) as run:
        pipe(num_inference_steps=T)
    assert run.computed == plan.options["schedule"].replace("m", "o").replace("a", "o")
    stricter = omnicache.calibrate(
        pipe, [1, 2], "feb-cache", progress=False, num_inference_steps=T, delta=plan.measured["delta"] / 2
    )
    assert stricter.measured["saved"] <= plan.measured["saved"]
