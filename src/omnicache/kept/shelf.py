"""Partial results in a folder, so that a calibration that was interrupted goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from omnicache.kept.files import kept


class Shelf:
    """Keeps tensors and numbers by name, in a folder that is this calibration's alone; nowhere without one.

    Args:
        folder: where to keep them; calibrations of other models, inputs or options may use it, too.
        model: the denoiser; its weights are part of the key.
        key: all else that the results depend on.
    """

    def __init__(self, folder: str | Path | None, model: nn.Module, key: Any):
        self.place = None if folder is None else Path(folder) / _digest([_weights(model), key])

    def known(self, name: str) -> bool:
        return self.place is not None and (self.place / f"{name}.pt").exists()

    def get(self, name: str, make: Callable[[], Any]) -> Any:
        """What is kept under this name; if nothing is, it is made and kept."""
        if self.place is None:
            return make()
        return kept(self.place / f"{name}.pt", make)


def _weights(model: nn.Module) -> list[Any]:
    """Names, sizes and a few numbers of all parameters."""
    return [(name, list(p.shape), str(p.dtype), p.detach().flatten()[:8].double().tolist()) for name, p in model.named_parameters()]


def _digest(key: Any) -> str:
    return hashlib.sha256(json.dumps(_plain(key), sort_keys=True).encode()).hexdigest()[:20]


def _plain(part: Any) -> Any:
    """As JSON. Tensors and generators by their contents, anything else by how it is printed."""
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
