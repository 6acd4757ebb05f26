"""What a plan that was measured belongs to: a denoiser and its weights, a scheduler, arguments of calls, a size."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from omnicache.errors import OmniCacheError
from omnicache.integrations.pipelines import denoisers, with_scheduler
from omnicache.models.discover import block_lists
from omnicache.runtime.call import latent_shape
from omnicache.sampler import described

USUAL = ("num_inference_steps", "guidance_scale", "true_cfg_scale", "strength", "height", "width", "num_frames")
"""Arguments that count as well where they are not given, and the pipeline's own values are taken."""
SAMPLE = 64
"""Numbers of each tensor that tell checkpoints apart."""
FORM = ("output_type", "return_dict")
"""Arguments that say how a result is handed over, and change nothing in it."""


def fingerprint(model: nn.Module) -> dict[str, Any]:
    """What a calibrated plan is bound to: the class of the denoiser and the number of its parameters, without those that LoRA
    and its like wrap around its layers: they come and go between runs, also after ``enable``."""
    return {"model": type(model).__name__, "parameters": sum(p.numel() for p in _own(model))}


def checkpoint(model: nn.Module) -> str:
    """A short word that tells the weights of one checkpoint from those of another, by the signs of some of them: the same in every
    precision, on every device, and with adapters loaded. "" where they are not at hand, as of offloaded or sharded ones."""
    own = [p.detach() for p in _own(model)]
    if any(type(p) is not torch.Tensor or p.is_meta for p in own):
        return ""
    some: dict[torch.device, list[torch.Tensor]] = {}
    for p in own:
        if p.is_floating_point():
            some.setdefault(p.device, []).append(p.flatten()[:: max(p.numel() // SAMPLE, 1)][:SAMPLE].float())
    signs = [torch.cat(found).signbit().cpu().numpy().tobytes() for found in some.values()]
    return hashlib.sha256(b"".join(signs)).hexdigest()[:12]


def other_weights(made_for: Mapping[str, Any], model: nn.Module) -> str:
    """The :func:`checkpoint` of a model where it is known and not the one that a plan was made for; else ""."""
    then = made_for.get("weights")
    now = checkpoint(model) if then else ""
    return now if now != then else ""


def _own(model: nn.Module) -> list[nn.Parameter]:
    """Its parameters without those that LoRA and its like have added."""
    wrapped = [m for m in model.modules() if isinstance(getattr(m, "base_layer", None), nn.Module)]
    added = {p for m in wrapped for n, p in m.named_parameters() if not n.startswith("base_layer.")}
    return [p for p in model.parameters() if p not in added]


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


def made_for(pipe: Any, call: Mapping[str, Any], inputs: Sequence[Any] = ()) -> dict[str, Any]:
    """What a plan that was measured on a pipeline fits: its denoiser, with its weights, its scheduler, and the arguments of its
    calls that are plain values, those of :data:`USUAL` also where neither the call nor an input gives them."""
    model = denoisers(pipe)[0]
    defaults = {name: p.default for name, p in inspect.signature(type(pipe).__call__).parameters.items() if name in USUAL}
    calls = [{**defaults, **call, **({k: one[k] for k in USUAL if k in one} if isinstance(one, Mapping) else {})} for one in inputs]
    first, *others = calls or [{**defaults, **call}]
    values = {k: v for k, v in first.items() if all(one[k] == v for one in others)}
    values = {k: v for k, v in values.items() if isinstance(v, (int, float, str)) and k not in FORM}
    weights = {"weights": word} if (word := checkpoint(model)) else {}
    found = fingerprint(model) | weights | values
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
