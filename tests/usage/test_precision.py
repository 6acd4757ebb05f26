"""Number formats, memory layouts and autograd modes, on real pipelines."""

from __future__ import annotations

import copy
import io
from typing import Any

import diffusers
import pytest
import torch

import omnicache

from ..methods.tiny import counted
from .parts import DEEP, METHODS, PARTS, STACK, STEPS, WATCHED, ask, block, denoiser, draw, pipeline, prompt


@pytest.mark.parametrize(
    ("family", "method", "options", "dtype"),
    [(*DEEP, torch.bfloat16), (*PARTS, torch.bfloat16), (*DEEP, torch.float16), (*STACK, torch.float16)],
)
def test_half_precision(family, method, options, dtype):
    pipe = pipeline(family).to(dtype)
    given = {name: t.to(dtype) for name, t in prompt(family).items()}
    ask(pipe, method, options, lambda: draw(pipe, **given))


@pytest.mark.parametrize(("family", "method", "options"), [DEEP, WATCHED])
def test_cast_while_enabled(family, method, options):
    """``pipe.to(dtype)`` between two runs of an enabled pipeline: the next one is that of a pipeline that was cast first."""
    given = {name: t.to(torch.bfloat16) for name, t in prompt(family).items()}
    first = pipeline(family).to(torch.bfloat16)
    with omnicache.cache(first, method, **options):
        wanted = draw(first, **given)
    pipe = pipeline(family)
    with omnicache.cache(pipe, method, **options):
        draw(pipe)
        pipe.to(torch.bfloat16)
        assert torch.equal(draw(pipe, **given), wanted)


@pytest.mark.parametrize(("family", "method", "options"), [DEEP])
def test_channels_last(family, method, options):
    pipe = pipeline(family)
    pipe.unet.to(memory_format=torch.channels_last)
    ask(pipe, method, options, lambda: draw(pipe))


@pytest.mark.parametrize(("family", "method", "options"), [DEEP, PARTS, WATCHED])
def test_inference_mode(family, method, options):
    pipe = pipeline(family)
    with omnicache.cache(pipe, method, **options):
        wanted = draw(pipe)
        with torch.inference_mode():
            assert torch.equal(draw(pipe), wanted)
        assert torch.equal(draw(pipe), wanted), "and out of it again"
    with torch.inference_mode():
        ask(pipe, method, options, lambda: draw(pipe))


@pytest.mark.parametrize(("family", "method", "options"), [DEEP, PARTS])
def test_autocast(family, method, options):
    pipe = pipeline(family)
    with torch.autocast("cpu", torch.bfloat16):
        ask(pipe, method, options, lambda: draw(pipe))


# --- copies and files ------------------------------------------------------------------------------------------------------


def reloaded(pipe: Any) -> Any:
    file = io.BytesIO()
    torch.save(pipe, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("copied", [copy.deepcopy, reloaded])
@pytest.mark.parametrize(("family", "method", "options"), [DEEP, PARTS])
def test_a_copy_of_an_enabled_pipeline_is_plain(family, method, options, copied):
    """The whole pipeline with its tapped scheduler, in the middle of its life: after a run, and enabled."""
    pipe = pipeline(family)
    plain = draw(pipe)
    with omnicache.cache(pipe, method, **options) as run:
        wanted = draw(pipe)
        twin = copied(pipe)
        with counted(denoiser(twin)) as calls:
            assert torch.equal(draw(twin), plain)
        assert calls[block(twin)] == STEPS
        assert len(run.trace.records) == STEPS
        with omnicache.cache(twin, method, **options):
            assert torch.equal(draw(twin), wanted)
        assert torch.equal(draw(pipe), wanted)


@pytest.mark.parametrize("family", METHODS)
def test_an_enabled_pipeline_is_saved_as_it_was(family, tmp_path):
    pipe = pipeline(family)
    plain = draw(pipe)
    with omnicache.cache(pipe, *[METHODS[family][0][0]]):
        pipe.save_pretrained(tmp_path, safe_serialization=True)
    model = type(denoiser(pipe)).from_pretrained(tmp_path / family, local_files_only=True)
    scheduler = type(pipe.scheduler).from_pretrained(tmp_path / "scheduler", local_files_only=True)
    assert isinstance(scheduler, diffusers.SchedulerMixin)
    assert torch.equal(draw(pipeline(family, given={**pipe.components, family: model, "scheduler": scheduler})), plain)
