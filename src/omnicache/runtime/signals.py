"""What triggers may ask about a step: the relative change of a tensor since the last visited step, per sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch

from omnicache.kernels import change_of, change_sums
from omnicache.policy import Signal, Tensors, value
from omnicache.runtime.streams import tensors_of
from omnicache.schema import Choice

PEEKED = " modulated"
"""Under this name, which no argument can have, ``Probe`` adds what the block handed to its attention."""


def moving(bound: Mapping[str, Any]) -> Tensors:
    """What can be watched in a model that is not known: its hidden states, or else all streams among its arguments."""
    if isinstance(x := bound.get("hidden_states"), torch.Tensor):
        return (x,)
    found = [t for v in bound.values() for t in tensors_of(v) if t.is_floating_point()]
    rank = 3 if any(t.ndim >= 3 for t in found) else 2
    return tuple(t if rank == 3 else t[None] for t in found if t.ndim >= rank)


class _Change(Signal):
    norm: str

    def sums(self, now: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        return change_sums(now, before, self.norm)

    def change(self, sums: torch.Tensor) -> torch.Tensor:
        return change_of(sums, self.norm)


@value
class LatentChange(_Change):
    """Relative change of the denoiser's input."""

    norm: Annotated[str, Choice(("l1", "l2"))] = "l1"
    at: ClassVar[str] = "denoiser"

    def probe(self, module: Any, bound: Mapping[str, Any]) -> torch.Tensor | None:
        return next((t for v in bound.values() for t in tensors_of(v) if t.ndim >= 3 and t.is_floating_point()), None)


@value
class ModulatedInputChange(_Change):
    """Relative change of the first block's normed and modulated input (TeaCache, arXiv 2411.19108, section 3.2).

    Blocks norm and modulate in many ways, and all hand the result to their attention: that is where it is read (``Probe``).
    """

    norm: Annotated[str, Choice(("l1", "l2"))] = "l1"
    at: ClassVar[str] = "stack"

    def probe(self, module: Any, bound: Mapping[str, Any]) -> torch.Tensor | None:
        return bound.get(PEEKED)
