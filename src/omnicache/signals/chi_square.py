from __future__ import annotations

from typing import Annotated

import torch

from omnicache.kernels import change_of, change_sums
from omnicache.policy import value
from omnicache.schema import Choice
from omnicache.signals.probe import ProbeChange


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
