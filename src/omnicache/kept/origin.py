"""What figures and pictures come from, beside what was asked for: what is kept of one origin says nothing about another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from omnicache.sampler import described

OUTSIDE = frozenset({"cli", "report", "zoo"})
"""Folders of the package that change no figure."""
SAMPLE = 8
"""Numbers of each tensor that tell weights apart."""


@cache
def sources(without: Collection[str] = frozenset()) -> str:
    """Of the code that figures come from, but for these folders."""
    root = Path(__file__).parents[1]
    files = [p for p in sorted(root.rglob("*.py")) if p.relative_to(root).parts[0] not in OUTSIDE | frozenset(without)]
    return hashlib.sha256(b"".join(p.read_bytes() for p in files)).hexdigest()


def surroundings(pipe: Any) -> dict[str, Any]:
    """A pipeline, or a module, as it is now, with its weights, adapters and scheduler; and the machine."""
    modules = dict(_modules(pipe))
    device = next((p.device for m in modules.values() for p in m.parameters()), torch.device("cpu"))
    scheduler = getattr(pipe, "scheduler", None)
    return {
        "pipeline": type(pipe).__name__,
        "scheduler": None if scheduler is None else described(scheduler),
        "weights": {name: [type(m).__name__, list(map(list, _weights(m))), _adapters(m)] for name, m in modules.items()},
        "machine": [machine(device), torch.__version__, _version("diffusers")],
    }


def machine(device: torch.device) -> str:
    """What computes: the name of an accelerator, or the CPU with its threads."""
    count = torch.get_num_threads()
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type}, {count} thread{'s' * (count != 1)}"


def digest(key: Any) -> str:
    """A short word that is the same for the same values: tensors, generators and pictures by their contents."""
    return hashlib.sha256(json.dumps(_plain(key), sort_keys=True).encode()).hexdigest()[:20]


def _modules(pipe: Any) -> Iterator[tuple[str, nn.Module]]:
    if isinstance(pipe, nn.Module):
        yield "", pipe
        return
    for name, part in sorted({**vars(pipe), **(getattr(pipe, "components", None) or {})}.items()):
        if isinstance(part, nn.Module):
            yield name, part


def _weights(module: nn.Module) -> Iterator[tuple[Any, ...]]:
    """Names, sizes and a few numbers of all parameters; of those that are elsewhere, as offloaded ones are, no numbers."""
    for name, p in module.named_parameters():
        told = [] if p.is_meta else p.detach().flatten()[:: max(p.numel() // SAMPLE, 1)][:SAMPLE].double().tolist()
        yield name, list(p.shape), str(p.dtype), told


def _adapters(module: nn.Module) -> list[Any]:
    """How strongly LoRA and its like act at the moment: those are no parameters."""
    scales = [(name, m.scaling, getattr(m, "active_adapters", None)) for name, m in module.named_modules() if hasattr(m, "scaling")]
    return [[name, str(scaling), str(active)] for name, scaling, active in scales if isinstance(scaling, Mapping)]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _plain(part: Any) -> Any:
    """As JSON."""
    if isinstance(part, Mapping):
        return {str(k): _plain(v) for k, v in part.items()}
    if isinstance(part, (list, tuple)):
        return [_plain(v) for v in part]
    if isinstance(part, torch.Generator):
        return hashlib.sha256(part.get_state().numpy().tobytes()).hexdigest()
    if isinstance(part, torch.Tensor):
        return [list(part.shape), str(part.dtype), hashlib.sha256(part.detach().cpu().float().numpy().tobytes()).hexdigest()]
    if hasattr(part, "tobytes"):  # pictures of Pillow, arrays
        return hashlib.sha256(part.tobytes()).hexdigest()
    return part if part is None or isinstance(part, (bool, int, float, str)) else repr(part)
