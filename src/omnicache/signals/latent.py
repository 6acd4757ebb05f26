from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import torch

from omnicache.policy import value
from omnicache.runtime.streams import tensors_of
from omnicache.schema import Choice
from omnicache.signals.change import Change, Norm


@value
class LatentChange(Change):
    """Change of the denoiser's input."""

    norm: Norm = "l1"
    against: Annotated[str, Choice(("visited", "computed"))] = "visited"  # pyright: ignore[reportIncompatibleVariableOverride]
    at = "denoiser"

    def probe(self, module: Any, bound: Mapping[str, Any]) -> torch.Tensor | None:
        return next((t for v in bound.values() for t in tensors_of(v) if t.ndim >= 3 and t.is_floating_point()), None)
