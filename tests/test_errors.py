"""What is refused, in which words; and that a refusal changes nothing: afterwards all is as before, and a valid call works."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import dataclass

import pytest
import torch
from diffusers import AutoencoderKL, PyramidAttentionBroadcastConfig
from torch import nn

import omnicache
from omnicache import OmniCacheError, Plan, Policy
from omnicache.granularity import MLP, Stack
from omnicache.methods.fora import fora
from omnicache.methods.omnicache_trajectory import omnicache_trajectory
from omnicache.plan import FORMAT
from omnicache.policy import Trigger
from omnicache.predictors import Hold, Residual, Taylor
from omnicache.selectors import TokenScores
from omnicache.triggers import First, Table

from .methods.tiny import Pipe, dit, latte, text_unet


def left_alone(pipe) -> bool:
    """No hook, no tap."""
    hooked = [n for n, m in pipe.model.named_modules() if vars(m).get("_compiled_call_impl") is not None]
    return not hooked and not {"step", "set_timesteps"} & set(vars(pipe.scheduler)) and "cache_context" not in vars(pipe.model)


@pytest.fixture
def pipe():
    """A pipeline; after the test its output is to the bit what it was, and enabling something valid works."""
    pipe = Pipe(dit(layers=2))
    plain = pipe()
    yield pipe
    assert left_alone(pipe)
    assert torch.equal(pipe(), plain)
    with omnicache.cache(pipe, "fora", interval=3) as run:
        pipe()
    assert run.computed == "#..#..#..#"
    assert torch.equal(pipe(), plain)
    assert left_alone(pipe)


# --- names and options


@pytest.mark.parametrize(
    ("method", "options", "said"),
    [
        ("taylorseeer", {}, r"There is no method 'taylorseeer'\. Did you mean 'taylorseer'\? `omnicache methods` lists them all"),
        ("FORA", {}, "There is no method 'FORA'"),
        ("xyzzy", {}, "There is no method 'xyzzy'. `omnicache methods`"),
        (
            "fora",
            {"intervall": 3},
            r"fora has no option 'intervall'\. Did you mean 'interval'\? It has: interval, count, granularity",
        ),
        ("none", {"interval": 3}, "none has no option 'interval'. It has none"),
        ("fora", {"interval": 0}, r"fora: option interval: 0 is outside \[1, 1000\]"),
        ("fora", {"interval": 2.5}, "fora: option interval: a whole number is needed, not 2.5"),
        ("fora", {"interval": "3"}, "fora: option interval: a number is needed, not '3'"),
        ("fora", {"interval": True}, "fora: option interval: a number is needed, not True"),
        ("fora", {"interval": None}, "fora: option interval: a number is needed, not None"),
        ("fora", {"interval": math.nan}, "fora: option interval: nan is outside"),
        ("fora", {"count": "sideways"}, "fora: option count: 'sideways' is none of 'down', 'up'"),
        ("taylorseer", {"order": 7}, r"option order: 7 is outside \[0, 6\]"),
        ("toca", {"ratio": 1.5}, r"option ratio: 1.5 is outside \[0, 1\]"),
        ("speca", {"threshold": -0.1}, r"option threshold: -0.1 is outside \[0, inf\]"),
        ("deepcache", {"branch": -1}, r"option branch: -1 is outside \[0, 100\]"),
        ("fewer-steps", {"ratio": 0.0}, r"option ratio: 0.0 is outside"),
        ("omnicache-trajectory", {}, r"needs a calibrated schedule: plan = omnicache\.calibrate"),
        ("omnicache-trajectory", {"schedule": "#x#"}, "needs a calibrated schedule"),
        ("fora", {"memory": "1 MB"}, r"fora has no option 'memory'.*guards=omnicache.Guards\(memory=...\)"),
        ("fora", {"guards": "1 MB"}, r"guards is a limit, guards=omnicache.Guards\(memory='1 MB'\), not str"),
        ("deepcache", {}, "deepcache needs a U-Net: DiTTransformer2DModel has no down and up path"),
        (3, {}, "A method is a name, a Plan, a Policy or the path of a plan file, not int"),
        (fora(), {"interval": 3}, "A finished plan takes no options; 'interval' was given"),
    ],
)
@pytest.mark.parametrize("verb", ["enable", "cache"])
def test_a_method_or_option_that_is_not_there_or_out_of_range(pipe, method, options, said, verb):
    with pytest.raises(OmniCacheError, match=said):
        omnicache.enable(pipe, method, **options) if verb == "enable" else omnicache.cache(pipe, method, **options).__enter__()


# --- plans


def written(tmp_path, text: str) -> str:
    (tmp_path / "bad.json").write_text(text)
    return str(tmp_path / "bad.json")


def changed(change) -> str:
    data = fora().to_json()
    change(data)
    return json.dumps(data)


PLAN_FILES = {
    "truncated": (lambda: json.dumps(fora().to_json())[:100], "not a readable plan file.*may be truncated"),
    "empty": (lambda: "", "not a readable plan file"),
    "binary": (lambda: "\x00\x01\x02", "not a readable plan file"),
    "foreign": (lambda: '{"model": "x"}', "is JSON, but not an OmniCache plan"),
    "a list": (lambda: "[1, 2]", "is JSON, but not an OmniCache plan"),
    "newer": (
        lambda: changed(lambda d: d.update(omnicache_plan=FORMAT + 1)),
        f"plan format {FORMAT + 1}, this OmniCache reads {FORMAT}",
    ),
    "unknown word": (
        lambda: changed(lambda d: d["policies"][0]["how"].update({"is": "Holdd"})),
        "names 'Holdd', which this OmniCache does not have. Did you mean 'Hold'",
    ),
    "code": (lambda: changed(lambda d: d["policies"][0]["how"].update({"is": "os.system"})), "names 'os.system'"),
    "unknown option": (
        lambda: changed(lambda d: d["policies"][0]["how"].update({"kep": 3})),
        "gives Hold the option 'kep', which it does not have",
    ),
    "no policies": (lambda: changed(lambda d: d.pop("policies")), "is damaged: KeyError: 'policies'"),
    "wrong kind": (lambda: changed(lambda d: d.update(policies=[1, 2])), "`policies` holds something that is no Policy"),
    "wrong number": (lambda: changed(lambda d: d.update(min_steps="many")), "is damaged: ValueError"),
}


@pytest.mark.parametrize("name", PLAN_FILES)
def test_a_plan_file_that_is_damaged_or_none(pipe, tmp_path, name):
    text, said = PLAN_FILES[name]
    with pytest.raises(OmniCacheError, match=said):
        omnicache.enable(pipe, written(tmp_path, text()))


def test_a_plan_file_that_is_not_there(pipe, tmp_path):
    for path in (tmp_path / "none.json", str(tmp_path / "none.json")):
        with pytest.raises(OmniCacheError, match=r"There is no plan file '.*none\.json'\. Make one with plan\.save"):
            omnicache.enable(pipe, path)


def test_a_folder_in_place_of_a_plan_file(pipe, tmp_path):
    with pytest.raises(OmniCacheError, match=r"cannot be read: it is a folder\. Give a plan file"):
        omnicache.enable(pipe, tmp_path)


@pytest.mark.parametrize(
    "made_for",
    [{"model": "FluxTransformer2DModel"}, {"model": "DiTTransformer2DModel", "parameters": 7}],
)
def test_a_plan_for_another_model_is_refused(pipe, made_for):
    plan = Plan("fora", fora().policies, made_for=made_for)
    with pytest.raises(
        OmniCacheError, match=r"The plan was made for .*this is DiTTransformer2DModel with \d+.*omnicache\.calibrate"
    ):
        omnicache.enable(pipe, plan)


def test_a_plan_for_another_step_count_leaves_the_run_uncached_with_a_warning_and_a_note(pipe):
    plan, plain = omnicache_trajectory(schedule="##.#.#.#"), pipe()
    with omnicache.cache(pipe, plan) as run:
        with pytest.warns(
            UserWarning, match="schedule is for 8 steps and this run has 10; make it again with num_inference_steps=10, or carry"
        ):
            assert torch.equal(pipe(), plain)
        assert run.computed == "#" * 10
        assert "Nothing was reused: the plan's schedule is for 8 steps" in str(run)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            pipe(num_inference_steps=8)
        assert run.computed == "##.#.#.#"


@pytest.mark.parametrize("method", ["fora", "taylorseer", "teacache", "speca", "toca"])
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_few_step_pipelines_are_left_uncached_with_a_sentence(pipe, method, steps):
    plain = pipe(num_inference_steps=steps)
    with omnicache.cache(pipe, method) as run:
        with pytest.warns(UserWarning, match=rf"Nothing was reused: {steps} steps are too few for caching"):
            assert torch.equal(pipe(num_inference_steps=steps), plain)
        assert run.computed == "#" * steps
        assert f"{steps} steps are too few" in str(run)
        assert run.cache_bytes == 0


def test_a_plan_that_cannot_be_saved_or_built():
    @dataclass(frozen=True)
    class Mine(Trigger):
        pass

    with pytest.raises(OmniCacheError, match=r"Mine cannot be saved: put @omnicache\.policy\.value on its class"):
        Plan("mine", (Policy(Mine(), Stack()),)).to_json()
    with pytest.raises(OmniCacheError, match=r"A plan can hold numbers, strings, lists, Weights and values; not Tensor"):
        fora().with_measured(x=torch.ones(1)).to_json()
    with pytest.raises(OmniCacheError, match=r"`which` refreshes rows of the last value, so it needs how=Hold\(\)"):
        Plan("mine", (Policy(First(1), MLP(), Taylor(1), which=TokenScores()),))
    with pytest.raises(OmniCacheError, match="goes together with another plan, not with 'taylorseer'"):
        fora() + "taylorseer"
    with pytest.raises(OmniCacheError, match=r"A plan is saved to a file, and '\.' is a folder"):
        fora().save(".")
    with pytest.raises(OmniCacheError, match=r"plan.for_steps\(20\), not '20'"):
        fora().for_steps("20")


# --- models


class NoBlocks(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Linear(2, 2)

    def forward(self, x, timestep):
        return self.one(x)


def test_an_autoencoder_in_place_of_the_denoiser():
    """Its lists hold None where a block lacks something."""
    vae = AutoencoderKL(block_out_channels=(4,), norm_num_groups=2, layers_per_block=1, mid_block_add_attention=False)
    with pytest.raises(OmniCacheError, match=r"Pass the denoiser \(pipe.transformer, pipe.unet\)"):
        omnicache.enable(vae, "fora")


def test_a_module_without_blocks(pipe):
    model = NoBlocks()
    with pytest.raises(OmniCacheError, match=r"NoBlocks has no list of blocks.*pipe\.transformer"):
        omnicache.enable(model, "fora")
    assert "_compiled_call_impl" not in vars(model)


@pytest.mark.parametrize("target", [3, "pipe", None, object(), ["a"]])
def test_neither_a_pipeline_nor_a_module(pipe, target):
    for verb in (omnicache.disable, lambda t: omnicache.enable(t, "fora")):
        with pytest.raises(OmniCacheError, match="is neither a diffusers pipeline with a transformer or unet nor a torch module"):
            verb(target)


@pytest.mark.parametrize("method", ["speca"])
def test_a_method_that_needs_a_row_of_blocks_on_a_u_net(method):
    pipe = Pipe(text_unet(levels=2))
    plain = pipe()
    with pytest.raises(OmniCacheError, match=r"UNet2DConditionModel"):
        omnicache.enable(pipe, method)
    assert left_alone(pipe)
    assert torch.equal(pipe(), plain)


def test_enabling_twice(pipe):
    run = omnicache.enable(pipe, "fora", interval=3)
    cached = pipe()
    for target in (pipe, pipe.model):
        with pytest.raises(
            OmniCacheError, match=r"DiTTransformer2DModel is already cached by fora, .* Call omnicache\.disable\(pipe\)"
        ):
            omnicache.enable(target, "taylorseer")
    assert torch.equal(pipe(), cached)
    assert run.computed == "#..#..#..#"
    omnicache.disable(pipe)
    omnicache.disable(pipe)  # where nothing is enabled it does nothing


def test_enabling_under_a_context(pipe):
    with omnicache.cache(pipe, "fora"), pytest.raises(OmniCacheError, match="already cached by fora"):
        omnicache.cache(pipe, "fora").__enter__()
    assert left_alone(pipe)


def test_a_diffusers_cache_that_is_on():
    pipe = Pipe(latte())
    shape = (4, 3, 8, 8)
    plain = pipe(shape=shape)
    config = PyramidAttentionBroadcastConfig(spatial_attention_block_skip_range=2, current_timestep_callback=lambda: 500)
    pipe.model.enable_cache(config)
    with_theirs = pipe(shape=shape)
    pipe.model.disable_cache()
    pipe.model.enable_cache(config)
    with pytest.raises(
        OmniCacheError, match=r"already has a diffusers cache\. Call LatteTransformer3DModel\.disable_cache\(\) first"
    ):
        omnicache.enable(pipe, "fora")
    assert left_alone(pipe)
    assert torch.equal(pipe(shape=shape), with_theirs)
    pipe.model.disable_cache()
    with omnicache.cache(pipe, "fora") as run:
        pipe(shape=shape)
    assert run.computed == "#..#..#..#"
    assert torch.equal(pipe(shape=shape), plain)


@pytest.mark.parametrize("way", ["wrapped", "in place"])
def test_a_model_compiled_as_a_whole(pipe, way):
    model = pipe.transformer
    if way == "wrapped":
        pipe.transformer = torch.compile(model, backend="eager")
    else:
        model.compile(backend="eager")
    before = dict(vars(pipe.transformer))
    with pytest.raises(OmniCacheError, match=r"compiled as a whole.*for block in model\.transformer_blocks: block\.compile\(\)"):
        omnicache.enable(pipe, "fora")
    assert vars(pipe.transformer) == before
    pipe.transformer, model._compiled_call_impl = model, None
    del model._compiled_call_impl


# --- calibration


def calibrate(pipe, inputs=(1, 2), method="omnicache-trajectory", **options):
    return omnicache.calibrate(pipe, list(inputs), method, progress=False, **{"num_inference_steps": 10, **options})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"reuse": 0.9},
            r"9 of 10 steps cannot be reused: with the first 2 and the last 1 computed.*5 can \(50%\)\. Ask for reuse=0\.50",
        ),
        ({"reuse": 7}, r"7 of 10 steps cannot be reused.*Ask for reuse=0\.50 \(a share; above 1 a number of steps\) or less"),
        ({"reuse": 1.5}, "reuse=1.5: up to 1 it is the share of the steps to reuse, above it their number"),
        ({"reuse": -0.1}, r"calibration of omnicache-trajectory: option reuse: -0\.1 is outside"),
        ({"order": "alphabetical"}, "option order: 'alphabetical' is none of"),
        ({"resue": 0.5}, "'resue' is neither an option of this calibration nor an argument of Pipe. Did you mean 'reuse'"),
        ({"num_inference_step": 10}, "Did you mean 'num_inference_steps'"),
        ({"num_inference_steps": 3}, "3 steps are too few: 2 at the start and 1 at the end are computed anyway"),
        ({"method": "fora"}, r"fora has nothing to calibrate; use omnicache\.cache\(pipe, 'fora'\) as it is"),
        ({"method": "terracotta"}, "There is no method 'terracotta'"),
        ({"inputs": ()}, "inputs must be a list with at least one entry"),
    ],
)
def test_calibrating_with_a_bad_argument(pipe, options, said):
    with pytest.raises(OmniCacheError, match=said):
        calibrate(pipe, **options)


@pytest.mark.parametrize("inputs", ["a red fox", 7, None])
def test_calibrating_on_what_is_no_list(pipe, inputs):
    with pytest.raises(OmniCacheError, match="inputs must be a list with at least one entry"):
        omnicache.calibrate(pipe, inputs, "omnicache-trajectory", progress=False)


def test_calibrating_what_is_enabled(pipe):
    with (
        omnicache.cache(pipe, "fora"),
        pytest.raises(OmniCacheError, match=r"Calibration measures uncached runs\. Call omnicache\.disable\(pipe\) first"),
    ):
        calibrate(pipe)


def test_calibrating_a_bare_denoiser(pipe):
    with pytest.raises(OmniCacheError, match=r"needs a pipeline with one denoiser and a scheduler|is neither an option"):
        calibrate(pipe.model)


def test_calibrating_a_u_net():
    pipe = Pipe(text_unet(levels=2))
    plain = pipe()
    plan = calibrate(pipe)
    assert left_alone(pipe)
    assert torch.equal(pipe(), plain)
    with omnicache.cache(pipe, plan) as run:
        assert not torch.equal(pipe(), plain)
    assert "." in run.computed


def test_a_calibration_that_breaks_off_leaves_nothing(pipe):
    calls = []

    def fail(*_):
        calls.append(1)
        if len(calls) == 14:
            raise ZeroDivisionError

    hook = pipe.model.register_forward_pre_hook(fail)
    with pytest.raises(ZeroDivisionError):
        calibrate(pipe)
    hook.remove()
    assert left_alone(pipe)


# --- errors of the pipeline itself


def test_an_error_inside_the_context_comes_out_as_it_is(pipe):
    def work():
        with omnicache.cache(pipe, "fora"):
            pipe(stop=5)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert left_alone(pipe)


def test_a_policy_or_plan_of_ones_own_is_as_good_as_a_name(pipe):
    policy = Policy(Table("#..#..#..#"), Stack(), Residual(Hold()))
    outs = []
    for method in (policy, Plan("mine", (policy,))):
        with omnicache.cache(pipe, method) as run:
            outs.append(pipe())
        assert run.computed == "#..#..#..#"
    assert torch.equal(*outs)
