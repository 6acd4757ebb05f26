"""How pipelines are called: guidance that changes, runs that end early, other sizes, several at once and one inside another."""

from __future__ import annotations

import copy
import threading
import time
import warnings
from typing import Any

import diffusers
import pytest
import torch

import omnicache

from ..methods.tiny import counted
from .parts import DEEP, EACH, METHODS, PARTS, STACK, STEPS, WATCHED, ask, block, denoiser, draw, drawn, pipeline, prompt

Given = dict[str, Any]


def alone(family: str, method: str, options: dict[str, Any], **given: Any) -> torch.Tensor:
    """What a new pipeline draws, to which nothing else has happened."""
    pipe = pipeline(family)
    with omnicache.cache(pipe, method, **options):
        return draw(pipe, **given)


# --- guidance --------------------------------------------------------------------------------------------------------------


def without_guidance_from(step: int) -> Any:
    """diffusers' own example of dynamic guidance: the callback takes the half for the empty prompt away."""

    def change(pipe: Any, i: int, t: Any, given: Given) -> Given:
        if i == step:
            pipe._guidance_scale = 0.0
            given = {name: x[len(x) // 2 :] for name, x in given.items()}
        return given

    return change


def switched(family: str, step: int) -> dict[str, Any]:
    names = ["prompt_embeds"] if family == "unet" else ["prompt_embeds", "pooled_prompt_embeds"]
    return {"callback_on_step_end": without_guidance_from(step), "callback_on_step_end_tensor_inputs": names}


@pytest.mark.parametrize(("family", "method", "options"), [DEEP, PARTS])
def test_guidance_off_and_on_again(family, method, options):
    pipe = pipeline(family)
    wanted = {scale: alone(family, method, options, guidance_scale=scale) for scale in (1.0, 3.0)}
    with omnicache.cache(pipe, method, **options):
        for scale in (3.0, 1.0, 3.0):
            assert torch.equal(draw(pipe, guidance_scale=scale), wanted[scale])


@pytest.mark.parametrize(("family", "method", "options"), EACH)
def test_guidance_switched_off_late(family, method, options):
    """The batch halves in the middle of a run: the first step without guidance is computed, and the ones after it are cached."""
    pipe = pipeline(family)
    ask(pipe, method, options, lambda: draw(pipe, **switched(family, 1)))
    with omnicache.cache(pipe, method, **options) as run, counted(denoiser(pipe)) as calls:
        late = draw(pipe, **switched(family, 1))
        assert run.computed[2] == "#"
        assert "." in run.computed[3:]
        assert calls[block(pipe)] < STEPS
        assert torch.equal(draw(pipe, **switched(family, 1)), late)


def test_a_third_pass_that_leaves_layers_out():
    """Skip-layer guidance, in a part of the steps only: a branch of its own, which begins with a computed step."""
    for method, options in METHODS["transformer"]:
        pipe = pipeline("transformer")
        given = {"skip_guidance_layers": [1], "skip_layer_guidance_start": 0.1, "skip_layer_guidance_stop": 0.9}
        ask(pipe, method, options, lambda: draw(pipe, **given))
        with omnicache.cache(pipe, method, **options) as run:
            draw(pipe, **given)
        main, third = (run.trace.strip(branch) for branch in run.trace.branches())
        assert (len(main), third[0]) == (STEPS, "#")
        assert len(third) < STEPS


# --- runs that end early ---------------------------------------------------------------------------------------------------


def interrupted(pipe: Any) -> None:
    """The button of a user interface."""

    def stop(pipe: Any, i: int, t: Any, given: Given) -> Given:
        pipe._interrupt = i >= 3
        return given

    draw(pipe, label=5, callback_on_step_end=stop)


def cancelled(pipe: Any) -> None:
    def stop(pipe: Any, i: int, t: Any, given: Given) -> Given:
        if i == 3:
            raise KeyboardInterrupt
        return given

    with pytest.raises(KeyboardInterrupt):
        draw(pipe, label=5, callback_on_step_end=stop)


def broken(pipe: Any) -> None:
    """Out of memory inside a block, at its second call."""
    seen = []

    def fail(*_: Any) -> None:
        seen.append(1)
        if len(seen) == 2:
            raise RuntimeError("a block is broken")

    hook = denoiser(pipe).get_submodule(block(pipe)).register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="a block is broken"):
        draw(pipe, label=5)
    hook.remove()


@pytest.mark.parametrize("early", [interrupted, cancelled, broken])
@pytest.mark.parametrize(("family", "method", "options"), [DEEP, PARTS])
def test_the_run_after_one_that_ended_early(family, method, options, early):
    pipe = pipeline(family)
    plain = draw(pipe)
    with omnicache.cache(pipe, method, **options) as run:
        wanted = draw(pipe)
        early(pipe)
        assert early is not broken or run.sessions[0].bytes() == 0
        assert torch.equal(draw(pipe), wanted)
        assert run.sessions[0].bytes() == 0
        early(pipe)
    assert torch.equal(draw(pipe), plain)


# --- sizes, schedulers, generators -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "method", "options"), [DEEP, STACK, WATCHED])
def test_sizes_and_batches_that_change_between_calls(family, method, options):
    calls: list[dict[str, Any]] = [
        {},
        {"height": 16, "width": 8},
        {"count": 3},
        {"num_inference_steps": 7},
        {"label": 2, "count": 2, "height": 8, "width": 16},
    ]
    wanted = [alone(family, method, options, **given) for given in calls]
    pipe = pipeline(family)
    with omnicache.cache(pipe, method, **options):
        for i in (0, 1, 2, 3, 4, 2, 0):
            assert torch.equal(draw(pipe, **calls[i]), wanted[i]), calls[i]


@pytest.mark.parametrize(("family", "method", "options"), [DEEP, PARTS])
def test_a_generator_for_each_image(family, method, options):
    """Each of a batch is the picture that its generator gives alone."""
    pipe = pipeline(family)
    with omnicache.cache(pipe, method, **options):
        batch = draw(pipe, count=3)
        for i in range(3):
            one = {name: x[i : i + 1] for name, x in prompt(family, 1, 3).items()}
            single = draw(pipe, **one, generator=torch.Generator().manual_seed(i))
            torch.testing.assert_close(single[0], batch[i], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(("family", "method", "options"), [DEEP, STACK])
def test_a_scheduler_replaced_after_enabling(family, method, options):
    pipe = pipeline(family)
    kinds = {
        "unet": [diffusers.EulerDiscreteScheduler, diffusers.DPMSolverMultistepScheduler, diffusers.HeunDiscreteScheduler],
        "transformer": [diffusers.FlowMatchHeunDiscreteScheduler, diffusers.FlowMatchEulerDiscreteScheduler],
    }[family]
    own, first = pipe.scheduler, alone(family, method, options)
    wanted = []
    for kind in kinds:
        fresh = pipeline(family)
        fresh.scheduler = kind.from_config(fresh.scheduler.config)
        with omnicache.cache(fresh, method, **options):
            wanted.append(draw(fresh))
    with omnicache.cache(pipe, method, **options) as run:
        assert torch.equal(draw(pipe), first)
        for kind, picture in zip(kinds, wanted, strict=True):
            pipe.scheduler = kind.from_config(pipe.scheduler.config)
            assert torch.equal(draw(pipe), picture)
            assert "." in run.computed
        pipe.scheduler = own
        assert torch.equal(draw(pipe), first)
    assert not {"step", "set_timesteps"} & set(vars(own))


@pytest.mark.parametrize(("family", "method", "options"), EACH)
def test_a_loop_without_a_pipeline(family, method, options):
    """The denoiser called by hand, on a scheduler that nothing was told of, gives what the pipeline gives."""
    pipe, given = pipeline(family), prompt(family)
    names = {"prompt_embeds": "encoder_hidden_states", "pooled_prompt_embeds": "pooled_projections"}
    conditions = {names[n]: torch.cat([given[f"negative_{n}"], given[n]]) for n in names if n in given}
    model, latents = denoiser(pipe), drawn(1, denoiser(pipe).config.in_channels, 8, 8)

    @torch.no_grad()
    def loop() -> torch.Tensor:
        x = latents
        pipe.scheduler.set_timesteps(STEPS)
        for t in pipe.scheduler.timesteps:
            both = model(torch.cat([x, x]), timestep=t.expand(2), **conditions, return_dict=False)[0]
            none, cond = both.chunk(2)
            x = pipe.scheduler.step(none + 3.0 * (cond - none), t, x).prev_sample
        return x

    plain = loop()
    tail = {"tail": 0} if method == "teacache" else {}  # where a run ends is not known without a pipeline
    up = {"count": "up"} if method == "fora" else {}
    with omnicache.cache(pipe, method, **options, **tail, **up):
        wanted = draw(pipe, latents=latents, output_type="latent")
    with omnicache.cache(model, method, **options, **tail, **up) as run, counted(model) as calls:
        torch.testing.assert_close(loop(), wanted, atol=1e-5, rtol=1e-4)
        assert 0 < calls[block(pipe)] < STEPS
        torch.testing.assert_close(loop(), wanted, atol=1e-5, rtol=1e-4)
        assert run.computed.startswith("#")
    assert torch.equal(loop(), plain)


# --- several at once -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "method", "options"), [DEEP, WATCHED])
def test_a_run_inside_another(family, method, options):
    """A preview from a callback, by a pipeline of another task around the same denoiser, with a scheduler of its own."""
    pipe = pipeline(family)
    own = {"scheduler": type(pipe.scheduler).from_config(pipe.scheduler.config)}
    inner = pipeline(family, "Img2Img", {**pipe.components, **own})
    picture = drawn(1, 3, 8, 8).sigmoid()
    previews = []

    def preview(pipe: Any, i: int, t: Any, given: Given) -> Given:
        if i in (1, 4):
            previews.append(draw(inner, image=picture, strength=0.9))
        return given

    with omnicache.cache(pipe, method, **options) as run:
        wanted, small = draw(pipe), draw(inner, image=picture, strength=0.9)
        assert torch.equal(draw(pipe, callback_on_step_end=preview), wanted)
        assert all(torch.equal(p, small) for p in previews)
        assert len(previews) == 2
        assert run.sessions[0].bytes() == 0


@pytest.mark.parametrize(("family", "method", "options"), [DEEP, STACK])
def test_threads_over_one_set_of_weights(family, method, options):
    """The full measure, 64 threads and 20 runs each, is ``benchmarks/serving.py``."""
    first = pipeline(family)
    config = first.scheduler.config
    pipes = [first]
    for _ in range(3):
        pipes.append(pipeline(family, given={**first.components, "scheduler": type(first.scheduler).from_config(config)}))
    wrong: list[int] = []
    with warnings.catch_warnings(), omnicache.cache(first, method, **options) as run:
        warnings.simplefilter("error")
        wanted = [draw(p, label=i) for i, p in enumerate(pipes)]

        def work(i: int) -> None:
            wrong.extend(i for _ in range(2) if not torch.equal(draw(pipes[i], label=i), wanted[i]))

        threads = [threading.Thread(target=work, args=(i,)) for i in range(len(pipes))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        assert run.sessions[0].bytes() == 0


def test_disabled_from_another_thread_in_the_middle_of_a_step():
    """The step had reused a part and would have computed the rest: it is computed anew, and so are all after it."""
    family, method, options = PARTS
    pipe = pipeline(family)
    plain, seen = draw(pipe), []
    model = denoiser(pipe)

    def disable(*_: Any) -> None:
        seen.append(1)
        if len(seen) == 2:  # the first reused step: attention before this was held, and what comes after would not be
            thread = threading.Thread(target=omnicache.disable, args=(pipe,))
            thread.start()
            while any("_compiled_call_impl" in vars(m) for m in model.modules()):
                time.sleep(0.001)

    hook = model.transformer_blocks[1].norm1.register_forward_pre_hook(disable)
    run = omnicache.enable(pipe, method, **options)
    assert torch.equal(draw(pipe), plain)
    hook.remove()
    assert "." not in run.computed
    assert run.sessions[0].bytes() == 0
    assert torch.equal(draw(pipe), plain)


def test_enabled_and_disabled_while_other_threads_draw():
    family, method, options = WATCHED
    first, stop = pipeline(family), threading.Event()
    pipes = []
    for _ in range(3):
        own = type(first.scheduler).from_config(first.scheduler.config)
        pipes.append(pipeline(family, given={**first.components, "scheduler": own}))
    wrong: list[BaseException] = []

    def work(pipe: Any) -> None:
        try:
            while not stop.is_set():
                assert torch.isfinite(draw(pipe)).all()
        except BaseException as problem:
            wrong.append(problem)

    threads = [threading.Thread(target=work, args=(pipe,)) for pipe in pipes]
    for thread in threads:
        thread.start()
    for i in range(12):
        omnicache.enable(first, method, **options)
        time.sleep(0.01 * (i % 5))
        omnicache.disable(first)
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_block_that_is_replaced_while_enabled_is_computed_and_this_is_said():
    family, method, options = STACK
    pipe = pipeline(family)
    with omnicache.cache(pipe, method, **options) as run:
        draw(pipe)
        pipe.transformer.transformer_blocks[1] = copy.deepcopy(pipe.transformer.transformer_blocks[1])
        with (
            pytest.warns(UserWarning, match=r"1 of 3 modules .* were replaced after it was enabled"),
            counted(pipe.transformer) as calls,
        ):
            draw(pipe)
        assert calls["transformer_blocks.1"] == STEPS
        assert calls["transformer_blocks.2"] < STEPS
        assert "were replaced" in str(run)
