from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from omnicache.policy import Signal, Where, value
from omnicache.runtime.seen import RETURNED
from omnicache.runtime.streams import tensors_of
from omnicache.signals.change import Change, Norm


@value
class OutputChange(Change):
    """Change of what a site returns, from one computed step to the next; known from the following step on.

    Attributes:
        each: whether all sites are told of, and not the first one alone.
    """

    where: Where  # pyright: ignore[reportIncompatibleVariableOverride]
    norm: Norm = "l1"
    each: bool = False  # pyright: ignore[reportIncompatibleVariableOverride]
    at = "site"
    against = "computed"

    def probe(self, module: Any, bound: Mapping[str, Any]) -> torch.Tensor | None:
        return next((t for t in tensors_of(bound.get(RETURNED)) if t.is_floating_point()), None)


@value
class OutputSize(Signal):
    """Mean absolute value of what a site returns."""

    where: Where  # pyright: ignore[reportIncompatibleVariableOverride]
    at = "site"
    against = "nothing"

    def probe(self, module: Any, bound: Mapping[str, Any]) -> torch.Tensor | None:
        return next((t for t in tensors_of(bound.get(RETURNED)) if t.is_floating_point()), None)

    def sums(self, now: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        size = now.flatten(1).float().abs().sum(1)
        return torch.stack((size, torch.full_like(size, now[0].numel())))
