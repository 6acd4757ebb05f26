"""What triggers may ask about a step: the relative change of a tensor since the last visited step, per sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import torch

from omnicache.kernels import change_of, change_sums
from omnicache.policy import Signal, Tensors, Where, value
from omnicache.runtime.streams import tensors_of
from omnicache.schema import Choice, Range

PEEKED = " modulated"
"""Under this name, which no argument can have, ``Probe`` adds what the block handed to its attention,"""
ENTERED = " entered"
"""under this one what the first block was given, under this what a module has returned,"""
RETURNED = " returned"
"""and under this the ``Step`` in progress."""
STEP = " step"


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
    at = "denoiser"

    def probe(self, module: Any, bound: Mapping[str, Any]) -> torch.Tensor | None:
        return next((t for v in bound.values() for t in tensors_of(v) if t.ndim >= 3 and t.is_floating_point()), None)


@value
class ModulatedInputChange(_Change):
    """Relative change of the first block's normed and modulated input (TeaCache, arXiv 2411.19108, section 3.2).

    Blocks norm and modulate in many ways, and all hand the result to their attention: that is where it is read (``Probe``).
    """

    norm: Annotated[str, Choice(("l1", "l2"))] = "l1"
    at = "stack"

    def probe(self, module: Any, bound: Mapping[str, Any]) -> torch.Tensor | None:
        return bound.get(PEEKED)


@value
class ProbeChange(_Change):
    """Relative change of what the first blocks make of the stream, before the others decide whether to run.

    Attributes:
        depth: so many blocks are looked at: what "visited" shows is told of 0, too, which is what the first block is given.
        of: "increment" is what they have added (First-Block-Cache, DBCache), "output" what they hand on (DiCache).
        against: the last step that was computed, or the last one "visited".
    """

    depth: Annotated[int, Range(0)] = 1
    of: Annotated[str, Choice(("increment", "output"))] = "increment"
    against: Annotated[str, Choice(("computed", "visited"))] = "computed"  # pyright: ignore[reportIncompatibleVariableOverride]
    norm: Annotated[str, Choice(("l1", "l2"))] = "l1"

    @property
    def at(self) -> int:  # type: ignore[override]
        return self.depth

    def probe(self, module: Any, bound: Mapping[str, Any]) -> torch.Tensor | None:
        found, entered = moving(bound), bound.get(ENTERED)
        if self.of == "increment" and found and entered is not None and entered.shape == found[0].shape:
            return found[0] - entered
        return found[0] if found else None


@value
class ChiSquareChange(ProbeChange):
    """The squared relative change of what the first blocks hand on, over its limit ``chi^2 / ND`` (FastCache, as published):
    ``1 + z sqrt(2 / ND)`` for ``ND`` numbers a sample. That is hardly above 1, so any change below the whole passes."""

    of: Annotated[str, Choice(("increment", "output"))] = "output"
    against: Annotated[str, Choice(("computed", "visited"))] = "visited"  # pyright: ignore[reportIncompatibleVariableOverride]
    z: float = 1.96

    def sums(self, now: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        found = change_sums(now, before, "l2")
        return torch.cat((found, torch.full_like(found[:1], now[0].numel())))

    def change(self, sums: torch.Tensor) -> torch.Tensor:
        return change_of(sums[:2], "l2").square() / (1 + self.z * (2 / sums[2]).sqrt())


@value
class OutputChange(_Change):
    """Relative change of what a site returns, from one computed step to the next; known from the following step on."""

    where: Where  # pyright: ignore[reportIncompatibleVariableOverride]
    norm: Annotated[str, Choice(("l1", "l2"))] = "l1"
    at = "site"
    against = "computed"

    def probe(self, module: Any, bound: Mapping[str, Any]) -> torch.Tensor | None:
        return next((t for t in tensors_of(bound.get(RETURNED)) if t.is_floating_point()), None)
