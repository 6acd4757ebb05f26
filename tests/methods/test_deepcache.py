"""DeepCache (arXiv 2312.00858): the tests that its reference asks for, on U-Nets with and without text, ControlNet and FreeU."""

import pytest
import torch
from tests.tiny import Always

import omnicache
from omnicache.errors import OmniCacheError
from omnicache.granularity import Deep
from omnicache.methods.deepcache import deepcache
from omnicache.models import discover
from omnicache.policy import Policy
from omnicache.predictors import Hold
from omnicache.triggers import First, Table

from .tiny import Pipe, Truth, conditions_for, counted, dit, full_steps, strip, text_unet, unet

LEAVES = (torch.nn.Conv2d, torch.nn.Linear, torch.nn.GroupNorm, torch.nn.LayerNorm)


def controlled(model):
    """The model with a ControlNet's residuals, which change from step to step, added at every skip connection and in the middle."""

    def add(module, args, kwargs):
        x, t = kwargs.get("sample", args[0] if args else None), kwargs["timestep"]
        draw = torch.Generator().manual_seed(int(t.max()))
        sizes = [(8, 8), (8, 8), (8, 8), (8, 4), (16, 4), (16, 4), (16, 2), (16, 2), (16, 2)]
        down = tuple(torch.randn(x.shape[0], c, s, s, generator=draw) for c, s in sizes)
        middle = torch.randn(x.shape[0], 16, 2, 2, generator=draw)
        return args, {**kwargs, "down_block_additional_residuals": down, "mid_block_additional_residual": middle}

    model.register_forward_pre_hook(add, with_kwargs=True)
    return model


def freed(model):
    model.enable_freeu(s1=0.6, s2=0.4, b1=1.3, b2=1.4)
    return model


MODELS = {
    "unet": lambda: unet(),
    "unet without attention": lambda: unet(attention=False),
    "text": lambda: text_unet(),
    "text, ControlNet": lambda: controlled(text_unet()),
    "text, FreeU": lambda: freed(text_unet()),
    "text, ControlNet, FreeU": lambda: freed(controlled(text_unet())),
}
CASES = [(name, branch) for name in MODELS for branch in range(5 if name.startswith("unet") else 8)]


@pytest.mark.parametrize(("interval", "full"), [(3, 17), (5, 10), (1, 50), (7, 8)])
def test_full_steps_of_50(interval, full):
    marks = strip(deepcache(interval=interval).policies[0].when, 50)
    assert full_steps(marks) == list(range(0, 50, interval))
    assert marks.count("#") == full


def test_the_papers_non_uniform_schedule_in_a_run():
    pipe = Pipe(text_unet(levels=2))
    with omnicache.cache(pipe, "deepcache", interval=5, schedule="power", power=1.4, center=15) as run:
        pipe(num_inference_steps=50)
    assert full_steps(run.computed) == [0, 5, 9, 13, 17, 21, 26, 31, 37, 43]
    plan = deepcache(5, schedule="power")
    assert strip(plan.policies[0].when, 50) == run.computed  # the defaults are the paper's
    assert omnicache.Plan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize(("build", "attention"), [(unet, True), (lambda: unet(attention=False), False), (text_unet, True)])
def test_branch_0_leaves_the_input_convolution_the_last_resnet_with_its_attention_and_the_head(build, attention):
    model = build()
    pipe, up = Pipe(model), len(model.up_blocks) - 1
    with omnicache.cache(pipe, "deepcache", interval=10) as run, counted(model) as calls:
        pipe()
    assert run.computed == "#" + "." * 9
    ten = {name for name, count in calls.items() if count >= 10}
    assert {n for n in ten if n.count(".") == 0} == {
        "time_proj",
        "time_embedding",
        "conv_in",
        "conv_norm_out",
        "conv_act",
        "conv_out",
    }
    inside = {".".join(n.split(".")[:4]) for n in ten if n.startswith(("up", "down", "mid"))}
    last = {f"up_blocks.{up}.resnets.2"} | ({f"up_blocks.{up}.attentions.2"} if attention else set())
    assert {n for n in inside if n.count(".") == 3} == last
    leaves = {n for n, m in model.named_modules() if isinstance(m, LEAVES)}
    own = ("time_embedding", "conv_in", "conv_norm_out", "conv_out", *last)
    for name in leaves & set(calls):
        assert calls[name] == (10 if name.startswith(own) else 1), name


@pytest.mark.parametrize("branch", range(8))
def test_what_runs_on_a_reuse_step_is_the_path_above_the_branch(branch):
    """Skip tensor ``b`` is made by layer ``b`` of the down path and taken by layer ``b`` from the end of the up path."""
    model = text_unet()
    down = ["conv_in", *[f"down_blocks.{i}.{part}" for i in range(3) for part in ("resnets.0", "resnets.1", "downsamplers.0")][:8]]
    up = [f"up_blocks.{2 - i}.resnets.{2 - j}" for i in range(3) for j in range(3)]
    pipe = Pipe(model)
    with omnicache.cache(pipe, "deepcache", interval=10, branch=branch), counted(model) as calls:
        pipe()
    assert [calls[n] for n in down] == [10 if k <= branch else 1 for k in range(9)]
    assert [calls[n] for n in up] == [10 if k <= branch else 1 for k in range(9)]
    assert calls["mid_block.resnets.0"] == 1


@pytest.mark.parametrize(("name", "branch"), CASES)
def test_the_true_value_in_place_of_the_kept_one_gives_the_full_output_exactly(name, branch):
    pipe, truth, steps = Pipe(MODELS[name]()), Truth(), {"num_inference_steps": 5, "stop": 3}
    uncached = pipe(**steps)
    with omnicache.cache(pipe, Policy(Always(), Deep(branch), truth)):
        assert torch.equal(pipe(**steps), uncached)
    with omnicache.cache(pipe, Policy(Table("#...."), Deep(branch), truth.played())) as run:
        assert torch.equal(pipe(**steps), uncached)
    assert run.computed == "#.."
    with omnicache.cache(pipe, Policy(Table("#...."), Deep(branch), truth.played(change=0.1))):
        assert not torch.equal(pipe(**steps), uncached)


@pytest.mark.parametrize(("name", "branch"), [("unet", 0), ("unet", 2), ("text", 0), ("text", 2), ("text, FreeU", 4), ("text", 7)])
def test_another_value_changes_no_activation_of_the_down_path(name, branch):
    model = MODELS[name]()
    pipe, truth = Pipe(model), Truth()
    with omnicache.cache(pipe, Policy(Always(), Deep(branch), truth)):
        pipe(num_inference_steps=5, stop=2)
    seen = []
    for change in (0.0, 0.5):
        values = {}
        hooks = [
            m.register_forward_hook(
                lambda m, args, out, n=n: values.update({n: out.clone()}) if isinstance(out, torch.Tensor) else None
            )
            for n, m in model.named_modules()
            if n.startswith(("conv_in", "down_blocks", "up_blocks"))  # the last call of each: at the reuse step, if it ran
        ]
        with omnicache.cache(pipe, Policy(Table("#...."), Deep(branch), truth.played(change))):
            pipe(num_inference_steps=5, stop=2)
        seen.append(values)
        for hook in hooks:
            hook.remove()
    down = [n for n in seen[0] if n.startswith(("conv_in", "down_blocks"))]
    assert down
    assert all(torch.equal(seen[0][n], seen[1][n]) for n in down)
    assert any(not torch.equal(seen[0][n], seen[1][n]) for n in seen[0] if n.startswith("up_blocks"))


@pytest.mark.parametrize(("name", "branch"), [c for c in CASES if "ControlNet" not in c[0]])
def test_a_net_blind_to_time_on_a_latent_that_stays_is_reused_exactly(name, branch):
    """Also where FreeU writes into the value that was kept."""
    model = MODELS[name]()
    hook = model.time_embedding.register_forward_hook(lambda m, args, out: out * 0)
    x, more = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)), conditions_for(model, torch.tensor([1]))
    with torch.no_grad():
        full = model(x, timestep=3, **more).sample
        with omnicache.cache(model, Policy(First(1), Deep(branch), Hold())) as run:
            for t in (9, 8, 7, 6):
                assert torch.equal(model(x, timestep=t, **more).sample, full)
    hook.remove()
    assert run.computed == "#..."


def test_skipped_levels_drop_their_residuals_and_the_others_take_the_present_ones():
    model = text_unet()
    x, more = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)), conditions_for(model, torch.tensor([1]))
    sizes = [(8, 8), (8, 8), (8, 8), (8, 4), (16, 4), (16, 4), (16, 2), (16, 2), (16, 2)]

    def residuals(shallow: float, deep: float):
        down = tuple(torch.full((1, c, s, s), shallow if i <= 1 else deep) for i, (c, s) in enumerate(sizes))
        return {"down_block_additional_residuals": down, "mid_block_additional_residual": torch.full((1, 16, 2, 2), deep)}

    def second_step(shallow: float, deep: float) -> torch.Tensor:
        with torch.no_grad(), omnicache.cache(model, "deepcache", branch=1):
            model(x, timestep=9, **more, **residuals(1.0, 1.0))
            return model(x, timestep=8, **more, **residuals(shallow, deep)).sample

    assert torch.equal(second_step(1.0, 1.0), second_step(1.0, 5.0))
    assert not torch.equal(second_step(1.0, 1.0), second_step(2.0, 1.0))


@pytest.mark.parametrize("guidance", ["none", "batched", "calls"])
def test_interval_1_is_the_plain_model(guidance):
    pipe = Pipe(text_unet())
    uncached = pipe(num_inference_steps=5, guidance=guidance)
    with omnicache.cache(pipe, "deepcache", interval=1):
        assert torch.equal(pipe(num_inference_steps=5, guidance=guidance), uncached)


def test_two_calls_keep_one_value_each():
    pipe = Pipe(text_unet())
    with omnicache.cache(pipe, "deepcache") as run:
        batched = pipe(guidance="batched")
        once = run.cache_bytes
        torch.testing.assert_close(pipe(guidance="calls"), batched, rtol=1e-5, atol=1e-3)
        assert run.cache_bytes == once == 2 * 8 * 8 * 8 * 4  # two halves of 8 x 8 x 8 floats


def test_the_phase_counts_from_the_first_call_of_an_image_to_image_run():
    pipe = Pipe(text_unet())
    with omnicache.cache(pipe, "deepcache", interval=3) as run:
        pipe(num_inference_steps=12, start=4)
    assert run.computed == "#..#..#."


def test_what_it_needs_is_said():
    with pytest.raises(OmniCacheError, match="deepcache needs a U-Net: DiTTransformer2DModel"), omnicache.cache(dit(), "deepcache"):
        pass
    with pytest.raises(OmniCacheError, match="no skip connection number 8"), omnicache.cache(text_unet(), "deepcache", branch=8):
        pass
    assert discover(text_unet()).deep(7)
    assert not discover(text_unet()).deep(8)
