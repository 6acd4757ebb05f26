"""What pipelines draw: pictures from text, from pictures and into masks, and videos; by one denoiser, by two, and in turn."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch
from tests.compat.denoisers.wan import DENOISERS
from tests.tiny import built

import omnicache

from ..methods.tiny import counted
from .parts import DEEP, EACH, PARTS, STACK, STEPS, ask, draw, drawn, pipeline

PICTURE, MASK = drawn(1, 3, 8, 8).sigmoid(), (drawn(1, 1, 8, 8, seed=1) > 0).float()
TASKS: dict[str, dict[str, Any]] = {
    "": {},
    "Img2Img": {"image": PICTURE, "strength": 0.9},
    "Inpaint": {"image": PICTURE, "mask_image": MASK, "strength": 0.9, "height": 8, "width": 8},
}


@pytest.mark.parametrize(
    ("family", "method", "options", "task"),
    [(*each, "") for each in EACH] + [(*each, task) for each in (DEEP, STACK) for task in ("Img2Img", "Inpaint")],
)
def test_pictures(family, method, options, task):
    pipe = pipeline(family, task)
    ask(pipe, method, options, lambda: draw(pipe, **TASKS[task]))


@pytest.mark.parametrize(("family", "method", "options"), [DEEP, PARTS])
def test_one_set_of_parts_drawn_with_in_turn(family, method, options):
    """As ``AutoPipelineForImage2Image.from_pipe`` hands them on: three pipelines share denoiser and scheduler."""
    pipe = pipeline(family)
    pipes = {task: pipeline(family, task, pipe.components) for task in TASKS}
    alone = {}
    for task, given in TASKS.items():
        with omnicache.cache(pipes[task], method, **options):
            alone[task] = draw(pipes[task], **given)
    with omnicache.cache(pipe, method, **options) as run:
        for task in (*TASKS, *reversed(TASKS)):
            assert torch.equal(draw(pipes[task], **TASKS[task]), alone[task]), task
            assert "." in run.computed or "o" in run.computed


# --- videos ----------------------------------------------------------------------------------------------------------------


def wan(kind: str = "", experts: int = 1) -> Any:
    """Wan without its text encoder; with two experts, each is given half of the steps."""
    tiny = DENOISERS["WanTransformer3DModel"]
    transformers = [tiny.build("WanTransformer3DModel") for _ in range(2)]
    with torch.no_grad():
        for p in transformers[1].parameters():
            p.mul_(0.9)
    vae = built(
        lambda: diffusers.AutoencoderKLWan(
            base_dim=3,
            z_dim=4,
            dim_mult=[1, 1],
            num_res_blocks=1,
            temperal_downsample=[False],
            latents_mean=[0.0] * 4,
            latents_std=[1.0] * 4,
        )
    )
    parts = {"tokenizer": None, "text_encoder": None, "vae": vae, "transformer": transformers[0]}
    parts["scheduler"] = diffusers.UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=1.0)
    two = {"transformer_2": transformers[1], "boundary_ratio": 0.5} if experts == 2 else {}
    made = getattr(diffusers, f"Wan{kind}Pipeline")(**parts, **two)
    made.set_progress_bar_config(disable=True)
    return made


def film(pipe: Any, steps: int = STEPS, **more: Any) -> torch.Tensor:
    """Latents of a film of two frames, guided by two calls a step."""
    texts = {"prompt_embeds": drawn(1, 6, 12, seed=1), "negative_prompt_embeds": drawn(1, 6, 12, seed=2)}
    call = {"num_inference_steps": steps, "guidance_scale": 3.0, "height": 16, "width": 16, "output_type": "latent"}
    return pipe(**texts, **call, generator=torch.Generator().manual_seed(0), **more).frames


def test_videos_from_text():
    pipe = wan()
    ask(pipe, "taylorseer", {"interval": 3, "warmup": 2}, lambda: film(pipe, num_frames=5), "blocks.1.ffn")


def test_videos_from_videos():
    pipe, given = wan("VideoToVideo"), [drawn(5, 3, 16, 16).sigmoid()]
    ask(pipe, "fora", {"interval": 3}, lambda: film(pipe, video=given, strength=0.9), "blocks.1.ffn")


@pytest.mark.parametrize("method", ["taylorseer", "fora", "teacache"])
def test_two_experts(method):
    options = {"taylorseer": {"interval": 3, "warmup": 2}, "fora": {"interval": 3}, "teacache": {"threshold": 1e9}}[method]
    pipe = wan(experts=2)
    with omnicache.cache(pipe, method, **omnicache.methods()[method].off):
        same = film(pipe, 14, num_frames=5)
    assert torch.equal(film(pipe, 14, num_frames=5), same)
    with omnicache.cache(pipe, method, **options) as run:
        with counted(pipe.transformer) as first, counted(pipe.transformer_2) as second:
            cached = film(pipe, 14, num_frames=5)
        for session, calls in zip(run.sessions, (first, second), strict=True):
            assert set(session.trace.branches()) == {"cond", "uncond"}
            assert 0 < calls["blocks.1.ffn"] < len(session.trace.records), "each expert saves work"
            assert session.trace.strip("cond").startswith("#"), "and begins with a computed step of its own"
            assert session.bytes() == 0
        assert len(run.sessions[0].trace.records) + len(run.sessions[1].trace.records) == 28
        assert torch.equal(film(pipe, 14, num_frames=5), cached)
