"""Weights that are elsewhere until a module is called: model and sequential offload, group offload, and layer-wise casting.

All of these act when a module is called, and passed-over modules are not. Groups are offloaded to files here: what stays in memory
is rubbish until the group is loaded, so that a module that ran without its weights would show.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import cpu_offload, cpu_offload_with_hook
from accelerate.hooks import remove_hook_from_module
from diffusers.hooks import HookRegistry, ModelHook, apply_group_offloading
from diffusers.hooks import group_offloading as groups
from torch import Tensor, nn

import omnicache

from .parts import DEEP, PARTS, STACK, STEPS, WATCHED, denoiser, draw, pipeline, prompt

CPU = torch.device("cpu")


def model_offload(pipe: Any, folder: Path) -> None:
    """What ``enable_model_cpu_offload`` does, which itself insists on an accelerator."""
    _, hook = cpu_offload_with_hook(denoiser(pipe), CPU)
    cpu_offload_with_hook(pipe.vae, CPU, prev_module_hook=hook)


def sequential_offload(pipe: Any, folder: Path) -> None:
    """Every layer's weights are on "meta" until it is called."""
    for part in (denoiser(pipe), pipe.vae):
        cpu_offload(part, CPU, offload_buffers=True)


def _groups(model: nn.Module, folder: Path, kind: str) -> None:
    count = {"num_blocks_per_group": 1} if kind == "block_level" else {}
    apply_group_offloading(model, CPU, CPU, kind, offload_to_disk_path=str(folder), **count)


def block_groups(pipe: Any, folder: Path) -> None:
    _groups(denoiser(pipe), folder, "block_level")


def prefetched_groups(pipe: Any, folder: Path) -> None:
    """Each group loads the next one, in the order of the first pass: what diffusers does with streams, here without one."""
    model = denoiser(pipe)
    _groups(model, folder, "leaf_level")
    hooks = [m._diffusers_hook.get_hook("group_offloading") for m in model.modules() if hasattr(m, "_diffusers_hook")]
    nothing = groups.ModuleGroup([], CPU, CPU, offload_leader=model, onload_leader=model)
    groups._apply_lazy_group_offloading_hook(model, nothing, config=hooks[0].config)


def casting(pipe: Any, folder: Path) -> None:
    denoiser(pipe).enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)


@pytest.fixture(scope="module")
def drawn_with() -> Callable[..., Tensor]:
    """What a method draws without any offloading, worked out once."""
    known: dict[str, Tensor] = {}

    def drawing(family: str, method: str, options: dict[str, Any], cast: bool) -> Tensor:
        key = f"{method} {cast}"
        if key not in known:
            pipe = pipeline(family)
            if cast:
                casting(pipe, Path())
            with omnicache.cache(pipe, method, **options):
                known[key] = draw(pipe)
        return known[key]

    return drawing


class Count(ModelHook):
    """Counts the calls of a module from inside diffusers' own hooks."""

    def __init__(self) -> None:
        self.calls = 0

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return args, kwargs


def counting(pipe: Any) -> Count:
    model, hook = denoiser(pipe), Count()
    inside = model.mid_block if hasattr(model, "mid_block") else model.transformer_blocks[1].ff
    HookRegistry.check_if_exists_or_initialize(inside).register_hook(hook, "count")
    return hook


PAIRS = [
    (model_offload, STACK),
    (sequential_offload, PARTS),
    (block_groups, DEEP),
    (prefetched_groups, WATCHED),
    (casting, DEEP),
    (casting, PARTS),
    (casting, WATCHED),
]
"""Ways and methods; the watched first block is one that is left halfway, with weights loaded or cast."""


@pytest.mark.parametrize(("way", "method"), PAIRS, ids=lambda x: x[1] if isinstance(x, tuple) else x.__name__)
def test_enabled_before_and_after(way, method, tmp_path, drawn_with):
    family, name, options = method
    wanted = drawn_with(family, name, options, way is casting)
    before, after = pipeline(family), pipeline(family)
    way(before, tmp_path / "before")
    omnicache.enable(before, name, **options)
    omnicache.enable(after, name, **options)
    way(after, tmp_path / "after")
    for pipe in (before, after):
        count = counting(pipe)
        assert torch.equal(draw(pipe), wanted)
        assert 0 < count.calls < STEPS, "what is passed over is not called, and so not loaded"
        assert torch.equal(draw(pipe), wanted), "the second run, with what the first one left in memory"
        omnicache.disable(pipe)
    count.calls = 0
    plain = draw(after)
    assert count.calls == STEPS
    assert not torch.equal(plain, wanted)
    with omnicache.cache(after, name, **omnicache.methods()[name].off):
        assert torch.equal(draw(after), plain)


@pytest.mark.parametrize(("way", "ours_first"), [(model_offload, True), (model_offload, False), (sequential_offload, False)])
def test_taken_away_in_either_order(way, ours_first, drawn_with, tmp_path):
    family, method, options = STACK
    wanted, pipe = drawn_with(family, method, options, False), pipeline(family)
    plain = draw(pipe)
    way(pipe, tmp_path)
    omnicache.enable(pipe, method, **options)
    draw(pipe)
    if ours_first:
        omnicache.disable(pipe)
        assert torch.equal(draw(pipe), plain)
    remove_hook_from_module(denoiser(pipe), recurse=True)
    remove_hook_from_module(pipe.vae, recurse=True)
    if not ours_first:
        assert torch.equal(draw(pipe), wanted)
        omnicache.disable(pipe)
    assert torch.equal(draw(pipe), plain)


def test_groups_taken_away_while_enabled(drawn_with, tmp_path):
    family, method, options = STACK
    pipe = pipeline(family)
    block_groups(pipe, tmp_path)
    omnicache.enable(pipe, method, **options)
    draw(pipe)
    for module in denoiser(pipe).modules():
        if (registry := getattr(module, "_diffusers_hook", None)) and (hook := registry.get_hook("group_offloading")):
            hook.group.onload_()
            registry.remove_hook("group_offloading", recurse=False)
    assert torch.equal(draw(pipe), drawn_with(family, method, options, False))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="streams and real offload need an NVIDIA GPU")
@pytest.mark.parametrize("kind", ["model", "block_level", "leaf_level"])
@pytest.mark.parametrize(("family", "method", "options"), [DEEP, WATCHED])
def test_on_a_gpu(family, method, options, kind):
    def drawing(offloaded: bool) -> Tensor:
        given = {name: t.cuda() for name, t in prompt(family).items()}
        pipe = pipeline(family)
        if not offloaded:
            pipe.to("cuda")
        elif kind == "model":
            pipe.enable_model_cpu_offload()
        else:
            pipe.vae.to("cuda")
            count = {"num_blocks_per_group": 1} if kind == "block_level" else {}
            apply_group_offloading(denoiser(pipe), torch.device("cuda"), CPU, kind, use_stream=True, **count)
        with omnicache.cache(pipe, method, **options):
            first = draw(pipe, **given)
            torch.testing.assert_close(draw(pipe, **given), first)
        return first

    torch.testing.assert_close(drawing(True), drawing(False))
