"""A plan where it was not made: what differs is listed, noted in runs or refused, and schedules are carried over to other steps."""

import contextlib
import warnings
from dataclasses import fields, is_dataclass, replace
from types import SimpleNamespace

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

import omnicache
from omnicache.correctors import Multistep, NoiseCorrection, Rectify, StepSizes
from omnicache.errors import OmniCacheError
from omnicache.fingerprint import checkpoint, made_for
from omnicache.granularity import Denoiser, Stack
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.predictors import Hold, Residual, ScaleShift
from omnicache.registry import calibrated
from omnicache.sampler import described
from omnicache.selectors import LinearGate
from omnicache.triggers import Every, First, Magnitudes, Table
from omnicache.weights import Weights

from .methods.test_ertacache import Mixture
from .methods.tiny import Pipe, dit

STEPS = 10


@pytest.fixture(scope="module")
def pipe():
    return Pipe(Mixture(), FlowMatchEulerDiscreteScheduler(shift=2.0))


@pytest.fixture(scope="module")
def plan(pipe):
    return omnicache.calibrate(
        pipe, [1, 2], "omnicache-optimal", progress=False, reuse=0.6, num_inference_steps=STEPS, guidance="none"
    )


def told(pipe, plan, **call):
    return {d.what: d for d in omnicache.check(pipe, plan, **call)}


def test_a_plan_knows_model_scheduler_steps_guidance_and_size(plan):
    assert set(plan.made_for) == {"model", "parameters", "weights", "scheduler", "num_inference_steps", "guidance", "latents"}
    assert plan.made_for["latents"] == (4, 8, 8)
    assert plan.made_for["scheduler"] == "FlowMatchEulerDiscreteScheduler(shift=2.0)"


def test_where_it_was_made_all_is_fine(pipe, plan, tmp_path):
    found = told(pipe, plan.save(tmp_path / "a.plan.json"), num_inference_steps=STEPS, guidance="none")
    assert {d.verdict for d in found.values()} == {"fine"}
    assert str(found["num_inference_steps"]) == "num_inference_steps: 10: fine"


def test_an_argument_that_is_not_given_is_the_pipelines_own(pipe, plan):
    other = replace(plan, made_for={**plan.made_for, "num_inference_steps": STEPS + 2})
    assert told(pipe, other)["num_inference_steps"].now == STEPS  # the default of Pipe.__call__
    assert told(pipe, other)["num_inference_steps"].verdict == "measured elsewhere"  # its schedule still is for ten


def test_each_difference_has_its_verdict(pipe, plan):
    found = told(Pipe(dit(), DDIMScheduler()), plan, num_inference_steps=8, guidance="batched")
    verdicts = {name: d.verdict for name, d in found.items()}
    refused = dict.fromkeys(("model", "parameters", "scheduler", "num_inference_steps"), "refused")
    elsewhere = dict.fromkeys(("weights", "guidance"), "measured elsewhere")
    assert verdicts == {**refused, **elsewhere, "latents": "fine"}
    assert "omnicache.calibrate(pipe, inputs, 'omnicache-optimal')" in found["model"].why
    assert "are fitted to the steps of FlowMatchEulerDiscreteScheduler(shift=2.0)" in found["scheduler"].why
    assert "Calibrate again with num_inference_steps=8" in found["num_inference_steps"].why


def test_what_no_call_gives_is_the_pipelines_own_or_the_inputs():
    pipe = Pipe(dit())
    made = lambda inputs, **call: omnicache.calibrate(pipe, inputs, "magcache", progress=False, **call)  # noqa: E731
    mine = made([1])
    assert mine.made_for["num_inference_steps"] == STEPS  # the default of Pipe.__call__
    assert made([1], num_inference_steps=8).made_for["num_inference_steps"] == 8
    assert made([{"label": 1, "num_inference_steps": 6}], num_inference_steps=8).made_for["num_inference_steps"] == 6
    assert told(pipe, mine, num_inference_steps=30)["num_inference_steps"].verdict == "measured elsewhere"
    with omnicache.cache(pipe, mine), pytest.warns(UserWarning, match="num_inference_steps=10, and this run has 12"):
        pipe(num_inference_steps=12)


def test_what_differs_from_input_to_input_is_no_part_of_what_a_plan_was_made_for(pipe):
    calls = [{"label": 1, "num_inference_steps": n} for n in (6, 8)]
    assert made_for(pipe, {}, calls[:1])["num_inference_steps"] == 6
    assert "num_inference_steps" not in made_for(pipe, {}, calls)


class Sized(Pipe):
    """Asked for pictures of a height and width, as most are."""

    vae_scale_factor = 2

    def __call__(self, label=1, num_inference_steps=10, generator=None, height=None, width=None):
        sides = (side // 2 if side else 8 for side in (height, width))
        return super().__call__(label, num_inference_steps, generator, shape=(4, *sides))


@pytest.mark.parametrize("made", [{}, {"height": 16, "width": 16}, {"height": 12, "width": 12}])
def test_another_resolution_was_measured_elsewhere(made):
    pipe = Sized(dit())
    mine = omnicache.calibrate(pipe, [1], "magcache", progress=False, **made)
    assert told(pipe, mine, **made)["latents"].verdict == "fine"
    small = told(pipe, mine, height=8, width=16)["latents"]
    assert small.verdict == "measured elsewhere" and small.now == (4, 4, 8)
    assert told(pipe, mine, height=16, width=16)["latents"].now == (4, 8, 8)


def test_a_size_that_follows_from_no_known_rule_is_left_to_the_run():
    pipe = Sized(dit())
    mine = Plan("mine", (Policy(Every(2), Stack(), Hold()),), made_for={"latents": (4, 3, 5)})
    assert told(pipe, mine, height=8, width=8)["latents"].verdict == "fine"
    flux = SimpleNamespace(vae_scale_factor=8, default_sample_size=128, transformer=dit())
    packed = Plan("mine", (Policy(Every(2), Stack(), Hold()),), made_for={"latents": (4096, 64)})
    assert told(flux, packed)["latents"].verdict == "fine"
    assert told(flux, packed, height=512, width=1024)["latents"].now == (2048, 64)


def test_another_checkpoint_of_the_same_architecture_is_listed_and_noted_and_runs():
    mine = omnicache.calibrate(Pipe(dit()), [1], "magcache", progress=False)
    other = Pipe(dit(seed=1))
    assert told(Pipe(dit()), mine)["weights"].verdict == "fine"
    assert told(other, mine)["weights"].verdict == "measured elsewhere"
    for pipe, noted in ((Pipe(dit()), False), (other, True)):
        with warnings.catch_warnings(action="error"), omnicache.cache(pipe, mine) as run:
            pipe()
        assert ("The plan was made with other weights" in str(run)) is noted


def test_a_plan_that_does_not_know_its_weights_goes_with_all():
    old = replace(omnicache.calibrate(Pipe(dit()), [1], "magcache", progress=False), made_for={"model": "DiTTransformer2DModel"})
    assert "weights" not in told(Pipe(dit(seed=1)), old)


def test_weights_are_told_apart_by_their_numbers_and_not_by_how_they_are_kept():
    model = dit()
    word = checkpoint(model)
    assert word == checkpoint(dit()) == checkpoint(dit().to(torch.float64)) == checkpoint(dit().to(torch.bfloat16))
    assert checkpoint(dit(seed=1)) != word
    assert checkpoint(dit().to("meta")) == ""
    with torch.no_grad():
        for p in model.parameters():
            p += 0.05 * p.std(correction=0) * torch.randn(p.shape, generator=torch.Generator().manual_seed(0))
    assert checkpoint(model) != word, "as after training on"


def test_numbers_fitted_to_one_sampler_are_not_used_with_another(plan):
    other = Pipe(Mixture(), FlowMatchEulerDiscreteScheduler(shift=3.0))
    plain = other(1)
    with pytest.raises(OmniCacheError, match=r"shift=2\.0\), and this is .*shift=3\.0"), omnicache.cache(other, plan):
        pass
    with omnicache.cache(other.model, plan) as run, pytest.warns(UserWarning, match="Nothing was reused: its numbers are fitted"):
        made = other(1)
    assert torch.equal(made, plain) and "." not in run.computed


def test_a_schedule_runs_with_another_sampler_and_says_so():
    ddim = {"scheduler": "DDIMScheduler(clip_sample=False)"}
    mine = Plan("mine", (Policy(Table("#.#.#.#.#."), Stack(), Residual(Hold())),), made_for=ddim)
    pipe = Pipe(dit(), DDIMScheduler(clip_sample=False, beta_end=0.03))
    assert told(pipe, mine)["scheduler"].verdict == "measured elsewhere"
    with pytest.warns(UserWarning, match=r"scheduler=DDIM.*this run has .*beta_end=0\.03"), omnicache.cache(pipe, mine) as run:
        pipe()
    assert run.computed == "#.#.#.#.#." and any("beta_end" in note for note in run.trace.notes)


def test_a_run_of_another_size_says_so():
    mine = Plan("mine", (Policy(Table("#.#.#.#.#."), Stack(), Residual(Hold())),), made_for={"latents": [4, 8, 8]})
    pipe = Pipe(dit())
    with omnicache.cache(pipe, mine) as run:
        pipe()
        assert not run.trace.notes
        with pytest.warns(UserWarning, match=r"latents=\(4, 8, 8\), and this run has \(4, 6, 6\)"):
            pipe(shape=(4, 6, 6))
    assert sum("latents" in note for note in run.trace.notes) == 1


def test_schedulers_are_told_apart_by_what_is_their_own():
    assert described(DDIMScheduler()) == "DDIMScheduler()"
    assert described(DDIMScheduler(beta_end=0.03)) == "DDIMScheduler(beta_end=0.03)"
    assert described(DDIMScheduler(trained_betas=torch.linspace(0.1, 0.2, 1000).numpy())).startswith(
        "DDIMScheduler(trained_betas=[0.1"
    )
    assert described(object()) == "object"


# --- carried over


@pytest.mark.parametrize(
    ("marks", "total", "wanted"),
    [
        ("#.#.#.#.#.", 5, "#.#.."),
        ("#....#....", 5, "#...."),
        ("#..#..", 12, "#..#..#..#.."),
        ("##..#", 10, "###..#..##"),
        ("####......", 5, "##..."),
        ("#.........", 3, "#.."),
        ("#.........", 30, "#.........#.........#........."),
        ("......", 3, "..."),
    ],
)
def test_the_same_share_is_computed_at_each_noise_level(marks, total, wanted):
    mine = Plan("mine", (Policy(First(2) | Table(marks), Stack(), Hold()),), made_for={"num_inference_steps": len(marks)})
    other = mine.for_steps(total)
    assert other.policies[0].when == First(2) | Table(wanted)
    assert other.made_for["num_inference_steps"] == total
    assert other.measured == {"carried_over": {"num_inference_steps": len(marks)}}
    assert other.for_steps(7).measured == other.measured, "what was measured is still that of the first"
    assert mine.for_steps(len(marks)) is mine


def test_a_correction_goes_with_the_steps_that_it_was_for():
    marks, gamma = "#.#.#.", (None, 0.1, None, 0.3, None, 0.5)
    mine = Plan("mine", (Policy(Table(marks), Denoiser(), Hold(), fix=NoiseCorrection(gamma, switch=4)),))
    fix = mine.for_steps(12).policies[0].fix
    assert fix.gamma == (None, None, 0.1, 0.1, None, None, 0.3, 0.3, None, None, 0.5, 0.5) and fix.switch == 8
    rectify = Rectify(((1.0,), None), ((2.0,), None)).for_steps(4)
    assert rectify == Rectify(((1.0,), (1.0,), None, None), ((2.0,), (2.0,), None, None))


@pytest.mark.parametrize("fix", [Multistep((None, (1.0, 2.0, 3.0))), StepSizes((None, 0.5))])
def test_numbers_that_are_fitted_to_their_steps_are_not_carried_over(fix):
    mine = Plan("mine", (Policy(Table("#."), Denoiser(), Hold(), fix=fix),))
    with pytest.raises(OmniCacheError, match=r"mine cannot be carried over to 9 steps: .* 2 steps hold for no others. Calibrate"):
        mine.for_steps(9)


OWN = 11
"""Steps, as many as nothing else of the tiny model is."""
CALIBRATED = {name: {} for name, entry in omnicache.methods().items() if entry.calibrate is not None} | {
    "block-caching": {"scale_shift": True, "threshold": 0.05},
    "harmonica": {"iterations": 1},
    "lazydit": {"iterations": 1},
    "learning-to-cache": {"iterations": 1},
    "omnicache-layered": {"speedup": 1.01},  # which depends on measured times
}


def by_step(part):
    """The values in a part of a plan that hold as many numbers as its run has steps."""
    if isinstance(part, Weights):
        return [part] if OWN in part.shape else []
    if isinstance(part, str):
        return [part] if len(part) == OWN and not set(part) - {*"#."} else []
    if isinstance(part, tuple):
        return [part] * (len(part) == OWN) + [found for p in part for found in by_step(p)]
    if not is_dataclass(part) or isinstance(part, Magnitudes):  # which takes its ratios by how far along a run is
        return []
    return [found for f in fields(part) for found in by_step(getattr(part, f.name))]


@pytest.mark.parametrize("method", CALIBRATED)
def test_nothing_that_was_calibrated_keeps_numbers_of_other_steps(method):
    tiny = Pipe(dit(), FlowMatchEulerDiscreteScheduler(shift=2.0))
    options = {"progress": False, "num_inference_steps": OWN, **CALIBRATED[method]}
    mine = omnicache.calibrate(tiny, [1, 2], method, **options)
    assert calibrated(mine)
    with contextlib.suppress(OmniCacheError):  # or it says that it cannot be
        assert not by_step(mine.for_steps(2 * OWN).policies)


def test_gates_are_not_carried_over_and_neither_are_scales():
    gate = Policy(Table("#."), Stack(), Hold(), which=LinearGate(Weights(torch.zeros(2, 4))))
    scales = Policy(Table("#."), Stack(), Residual(ScaleShift((Weights(torch.zeros(2, 2, 4)),))))
    for policy in (gate, scales):
        with pytest.raises(OmniCacheError, match=r"mine cannot be carried over to 4 steps: .* 2 steps hold for no others. Calib"):
            Plan("mine", (policy,)).for_steps(4)


def test_a_plan_without_a_schedule_stays_as_it_is():
    mine = Plan("mine", (Policy(Every(3), Stack(), Hold()),))
    assert mine.for_steps(30).policies == mine.policies


def test_a_plan_that_was_carried_over_runs(pipe):
    mine = Plan("mine", (Policy(Table("#..#..#..."), Stack(), Residual(Hold())),), made_for={"num_inference_steps": 10})
    tiny = Pipe(dit())
    assert "plan.for_steps(20) carries it over" in told(tiny, mine, num_inference_steps=20)["num_inference_steps"].why
    with omnicache.cache(tiny, mine.for_steps(20)) as run:
        tiny(num_inference_steps=20)
    assert run.computed == "#..#..#..#..#...#..."
