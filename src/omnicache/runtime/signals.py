"""What triggers may ask about a step: the relative change of a tensor since the last visited step, per sample."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from omnicache.kernels import relative_change
from omnicache.policy import Signal, Tensors, value
from omnicache.runtime.streams import tensors_of


def moving(bound: Mapping[str, Any]) -> Tensors:
    """What can be watched in a model that is not known: its hidden states, or else all streams among its arguments."""
    if isinstance(x := bound.get("hidden_states"), torch.Tensor):
        return (x,)
    found = [t for v in bound.values() for t in tensors_of(v) if t.is_floating_point()]
    rank = 3 if any(t.ndim >= 3 for t in found) else 2
    return tuple(t if rank == 3 else t[None] for t in found if t.ndim >= rank)


class _Change(Signal):
    norm: str

    def compare(self, now: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        return relative_change(now, before, self.norm)


@value
class LatentChange(_Change):
    """Relative change of the denoiser's input."""

    norm: str = "l1"
    at: ClassVar[str] = "denoiser"

    def probe(self, module: Any, bound: Mapping[str, Any]) -> torch.Tensor | None:
        return next((t for v in bound.values() for t in tensors_of(v) if t.ndim >= 3 and t.is_floating_point()), None)


@value
class ModulatedInputChange(_Change):
    """Relative change of the first block's normed and modulated input (TeaCache, arXiv 2411.19108, section 3.2)."""

    norm: str = "l1"
    at: ClassVar[str] = "stack"

    def probe(self, module: nn.Module, bound: Mapping[str, Any]) -> torch.Tensor | None:
        x = bound.get("hidden_states")
        norm1 = getattr(module, "norm1", None)
        if not isinstance(x, torch.Tensor) or not isinstance(norm1, nn.Module):
            return None
        table, time = getattr(module, "scale_shift_table", None), bound.get("timestep")
        if isinstance(table, torch.Tensor) and isinstance(time, torch.Tensor) and table.shape[0] == 6:
            # adaLN-single (PixArt, Latte): six rows of width d, shift and scale of the attention first
            shift, scale = (table[None] + time.reshape(x.shape[0], 6, -1)).chunk(6, dim=1)[:2]
            return norm1(x) * (1 + scale) + shift
        wanted = inspect.signature(norm1.forward).parameters
        known = {"timestep": time, "class_labels": bound.get("class_labels"), "hidden_dtype": x.dtype, "emb": bound.get("temb")}
        extra = {k: v for k, v in known.items() if k in wanted and v is not None}
        if len(wanted) < 2 or not extra:
            return None  # a plain norm: nothing of the timestep in it
        out = norm1(x, **extra)
        return out[0] if isinstance(out, tuple) else out
