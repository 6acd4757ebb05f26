"""What a plan that was measured belongs to: a denoiser, a scheduler, arguments of calls, a size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

from omnicache.errors import OmniCacheError
from omnicache.integrations.pipelines import denoisers, with_scheduler
from omnicache.models.discover import block_lists
from omnicache.runtime.call import latent_shape
from omnicache.sampler import described

FORM = ("output_type", "return_dict")
"""Arguments that say how a result is handed over, and change nothing in it."""


def fingerprint(model: nn.Module) -> dict[str, Any]:
    """What a calibrated plan is bound to: the class of the denoiser and the number of its parameters, without those that LoRA
    and its like wrap around its layers: they come and go between runs, also after ``enable``."""
    wrapped = [m for m in model.modules() if isinstance(getattr(m, "base_layer", None), nn.Module)]
    added = {p for m in wrapped for n, p in m.named_parameters() if not n.startswith("base_layer.")}
    return {"model": type(model).__name__, "parameters": sum(p.numel() for p in model.parameters() if p not in added)}


def kinds(pipe: Any) -> list[str]:
    """What the denoisers are, for presets, in words: the class, the class with the number of its blocks ("Wan/40+40" where two of
    one class share a run), and the configuration. What is wrong with a pipeline is said when it is enabled."""
    try:
        found = [(model, type(model).__name__, sum(len(blocks) for _, blocks in block_lists(model))) for model in denoisers(pipe)]
    except OmniCacheError:
        return []
    told = [(name, "+".join(str(n) for _, other, n in found if other == name), model) for model, name, _ in found]
    return [" ".join((name, f"{name}/{blocks}", *_configured(model))) for name, blocks, model in told]


def _configured(model: nn.Module) -> Iterator[str]:
    config = getattr(model, "config", None)
    for name, value in config.items() if isinstance(config, Mapping) else ():
        if value is None or isinstance(value, (int, float, str)):
            yield f"{name}={value}"


def made_for(pipe: Any, call: Mapping[str, Any]) -> dict[str, Any]:
    """What a plan that was measured on a pipeline fits: its denoiser, its scheduler, and the arguments of its calls that are plain
    values."""
    values = {k: v for k, v in call.items() if isinstance(v, (int, float, str)) and k not in FORM}
    found = fingerprint(denoisers(pipe)[0]) | values
    return found | ({"scheduler": described(pipe.scheduler)} if with_scheduler(pipe) is not None else {})


@contextmanager
def shape_seen(model: nn.Module) -> Iterator[dict[str, Any]]:
    """Gets the shape of the latents that the denoiser is given, without the batch, if it is always the same."""
    shapes: set[tuple[int, ...]] = set()
    found: dict[str, Any] = {}

    def look(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        shapes.add(latent_shape((*args, *kwargs.values())))

    handle = model.register_forward_pre_hook(look, with_kwargs=True)
    try:
        yield found
    finally:
        handle.remove()
        if len(shapes) == 1 and (shape := shapes.pop()):
            found["latents"] = shape
