from __future__ import annotations

from typing import Annotated

import torch

from omnicache.kernels import change_of, change_sums
from omnicache.policy import Signal
from omnicache.schema import Choice

Norm = Annotated[str, Choice(("l1", "l2", "mean", "mse"))]
"""How a change is told: relative ("l1": of sums, "l2": of roots of squares), or as the mean of absolute values or of squares."""


class Change(Signal):
    """Base of signals that tell how much a tensor has changed, for each sample."""

    norm: str

    def sums(self, now: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        top, bottom = change_sums(now, before, "l2" if self.norm in ("l2", "mse") else "l1")
        if self.norm in ("mean", "mse"):
            bottom = torch.full_like(top, now[0].numel())
        return torch.stack((top, bottom))

    def change(self, sums: torch.Tensor) -> torch.Tensor:
        return change_of(sums, "l2" if self.norm == "l2" else "l1")
