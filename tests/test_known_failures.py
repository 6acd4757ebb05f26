"""What other caches for diffusers are known to get wrong, each as a test under the name of the failure."""

from __future__ import annotations

import copy
import io
import threading
import warnings

import pytest
import torch
from diffusers import AutoencoderKL, DiTPipeline, FluxControlNetModel
from torch import nn

import omnicache

from .methods.tiny import Pipe, counted, ddim, dit, latte, text_unet

METHODS = ["fora", "taylorseer", "teacache"]


def real(model: nn.Module | None = None) -> DiTPipeline:
    """diffusers' own pipeline around a tiny model."""
    torch.manual_seed(0)
    vae = AutoencoderKL(block_out_channels=(4,), norm_num_groups=2, layers_per_block=1, latent_channels=4).eval()
    pipe = DiTPipeline(transformer=model or dit(num_embeds_ada_norm=1000, out_channels=8), vae=vae, scheduler=ddim())
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe: DiTPipeline, labels: tuple[int, ...] = (1,), guidance: float = 2.0, steps: int = 8) -> torch.Tensor:
    seeds = [torch.Generator().manual_seed(label) for label in labels]
    call = {"num_inference_steps": steps, "guidance_scale": guidance, "output_type": "pt"}
    return torch.as_tensor(pipe(list(labels), generator=seeds, **call).images)


@pytest.mark.parametrize("method", METHODS)
def test_batch_equals_single(method):
    pipe = real()
    options = {"threshold": 1e9} if method == "teacache" else {}
    with omnicache.cache(pipe, method, **options):
        batch = draw(pipe, (1, 2, 3))
        for i, label in enumerate((1, 2, 3)):
            torch.testing.assert_close(draw(pipe, (label,))[0], batch[i], atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", METHODS)
def test_enable_after_a_first_run(method):
    pipe, fresh = real(), real()
    draw(pipe)
    omnicache.enable(pipe, method)
    omnicache.enable(fresh, method)
    assert torch.equal(draw(pipe), draw(fresh))


def test_second_sampler_run_with_another_size():
    pipe = Pipe(dit())
    with omnicache.cache(pipe, "fora", interval=3) as run:
        first = pipe(1)
        pipe(torch.tensor([1, 2, 3]))
        assert run.computed == "#..#..#..#"
        assert torch.equal(pipe(1), first)
        pipe(1, num_inference_steps=7)
        assert run.computed == "#..#..#"


@pytest.mark.parametrize("method", METHODS)
def test_cancelled_run(method):
    pipe = real()
    with omnicache.cache(pipe, method) as run:
        wanted = draw(pipe)
        plain = pipe.scheduler.step

        def cancel(*args, **kwargs):
            if len(run.trace.records) == 4:
                raise KeyboardInterrupt
            return plain(*args, **kwargs)

        pipe.scheduler.step = cancel
        with pytest.raises(KeyboardInterrupt):
            draw(pipe, (5,))
        pipe.scheduler.step = plain
        assert torch.equal(draw(pipe), wanted)


def test_two_experts():
    pipe = Pipe(dit())
    pipe.transformer_2 = dit(seed=1)
    pipe.components = {"transformer": pipe.transformer, "transformer_2": pipe.transformer_2}

    def by_expert(x, t, conditions):
        model = pipe.transformer if t > 450 else pipe.transformer_2
        return model(x, timestep=t.expand(x.shape[0]), **conditions).sample

    pipe.evaluate = by_expert
    with omnicache.cache(pipe, "fora", interval=3, count="up") as run:
        out = pipe(num_inference_steps=12)
        strips = [s.trace.computed for s in run.sessions]
    assert [len(s) for s in strips] == [6, 6], "each expert has its own half of the run"
    assert strips == ["#..#..", "#..#.."]
    assert torch.isfinite(out).all()


def test_in_place_block():
    class Writes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(Adds() for _ in range(3))

        def forward(self, x, timestep):
            x = x.clone()
            for block in self.blocks:
                x = block(x)
            return x

    class Adds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(1.0), requires_grad=False)

        def forward(self, x):
            return x.add_(self.weight)

    for mode in (torch.no_grad, torch.inference_mode):
        model = Writes()
        with mode(), omnicache.cache(model, "taylorseer", interval=3, warmup=1):
            for i in range(9):
                x = torch.full((1, 2, 2), float(i))
                assert torch.equal(model(x, torch.tensor([9.0 - i])), x + 3)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_few_steps_are_refused_kindly(steps):
    pipe = real()
    plain = draw(pipe, steps=steps)
    with omnicache.cache(pipe, "taylorseer") as run, pytest.warns(UserWarning, match="too few for caching"):
        assert torch.equal(draw(pipe, steps=steps), plain)
    assert "." not in run.computed


@pytest.mark.parametrize("method", METHODS)
def test_memory_zero_after_a_run(method):
    pipe = real()
    with omnicache.cache(pipe, method) as run:
        draw(pipe)
        assert run.sessions[0].bytes() == 0
        assert run.cache_bytes > 0


@pytest.mark.parametrize("model", [dit, latte, text_unet])
def test_two_guidance_calls_without_a_context(model):
    pipe = Pipe(model())
    shape = {"shape": (4, 3, 8, 8)} if model is latte else {}
    with omnicache.cache(pipe, "fora", interval=3) as run:
        two = pipe(guidance="calls", **shape)
        assert run.trace.branches() == [0, 1]
        assert {run.trace.strip(b) for b in (0, 1)} == {"#..#..#..#"}
        one = pipe(guidance="batched", **shape)
    torch.testing.assert_close(two, one, atol=1e-4, rtol=1e-4)


def test_guidance_of_one():
    pipe = real()
    with omnicache.cache(pipe, "fora", interval=3) as run:
        draw(pipe, guidance=1.0)
        assert run.computed == "#.#..#.#" or run.computed.count("#") < 8
        draw(pipe, guidance=4.0)
        assert run.computed.count("#") < 8


def test_two_pipelines_of_one_class_and_disabling_one():
    a, b, third = (real(dit(seed=i, num_embeds_ada_norm=1000, out_channels=8)) for i in range(3))
    plain = [draw(p) for p in (a, b, third)]
    omnicache.enable(a, "fora")
    omnicache.enable(b, "fora")
    cached = draw(b)
    omnicache.disable(a)
    assert torch.equal(draw(a), plain[0])
    assert torch.equal(draw(b), cached)
    assert not torch.equal(cached, plain[1])
    assert torch.equal(draw(third), plain[2])
    omnicache.disable(b)
    assert torch.equal(draw(b), plain[1])


def test_a_controlnet_residual_is_counted_once():
    """Flux adds a ControlNet's samples between blocks: on inputs that stand still reuse must not add them twice."""
    from tests.compat.denoisers.flux import DENOISERS
    from tests.compat.tiny import Draw

    tiny = DENOISERS["FluxTransformer2DModel"]
    model, given = tiny.build("FluxTransformer2DModel"), tiny.inputs(Draw(), 1)
    assert FluxControlNetModel is not None
    controls = {
        "controlnet_block_samples": [Draw(5).normal(1, 16, 16), Draw(6).normal(1, 16, 16)],
        "controlnet_single_block_samples": [Draw(7).normal(1, 16, 16)],
    }
    pipe = Pipe(model, ddim())
    for method, options in (("fora", {"granularity": "stack"}), ("taylorseer", {"interval": 3, "warmup": 2}), ("fora", {})):
        with torch.no_grad(), omnicache.cache(pipe, method, **options) as run:
            pipe.scheduler.set_timesteps(8)
            outs = []
            for t in pipe.scheduler.timesteps:
                outs.append(model(**given, **controls, return_dict=False)[0])
                pipe.scheduler.step(torch.zeros(1, 4, 8, 8), t, torch.zeros(1, 4, 8, 8))
        assert "." in run.computed
        for out in outs[1:]:
            torch.testing.assert_close(out, outs[0], atol=1e-5, rtol=1e-4)


def test_a_copy_and_a_saved_file_of_an_enabled_model_are_plain():
    pipe = Pipe(dit())
    plain = pipe()
    omnicache.enable(pipe, "fora")
    twin = copy.deepcopy(pipe.model)
    file = io.BytesIO()
    torch.save(pipe.model, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    for model in (twin, loaded):
        assert torch.equal(Pipe(model)(), plain)
        assert not any("_compiled_call_impl" in vars(m) for m in model.modules())


@pytest.mark.parametrize("mode", ["inference", "bf16", "channels last"])
def test_modes(mode):
    model = text_unet() if mode == "channels last" else dit()
    if mode == "bf16":
        model = model.to(torch.bfloat16)
    if mode == "channels last":
        model = model.to(memory_format=torch.channels_last)
    pipe = Pipe(model)
    dtype = {"dtype": torch.bfloat16} if mode == "bf16" else {}
    method = "deepcache" if mode == "channels last" else "taylorseer"
    around = torch.inference_mode if mode == "inference" else torch.no_grad
    with around():
        plain = pipe(**dtype)
        with omnicache.cache(pipe, method, interval=1):
            assert torch.equal(pipe(**dtype), plain)
        with omnicache.cache(pipe, method, interval=3), counted(model) as calls:
            assert torch.isfinite(pipe(**dtype)).all()
        assert torch.equal(pipe(**dtype), plain)
    assert calls


def test_64_threads_over_one_set_of_weights():
    """Each with a pipeline and a scheduler of its own: every picture is that of its single-threaded twin, to the bit."""
    model = dit(layers=2)
    pipes = [Pipe(model, ddim()) for _ in range(64)]

    def seed(i: int) -> torch.Generator:
        return torch.Generator().manual_seed(i)

    with warnings.catch_warnings(), omnicache.cache(pipes[0], "taylorseer", interval=3, warmup=2) as run:
        warnings.simplefilter("error")
        alone = [pipe(num_inference_steps=6, generator=seed(i)) for i, pipe in enumerate(pipes)]
        wrong: list[int] = []

        def work(i: int) -> None:
            for _ in range(2):
                if not torch.equal(pipes[i](num_inference_steps=6, generator=seed(i)), alone[i]):
                    wrong.append(i)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(64)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        assert run.sessions[0].bytes() == 0
