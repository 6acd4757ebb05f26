from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from omnicache.kernels import change_of
from omnicache.models.grid import Grid
from omnicache.policy import Signal, Where, value
from omnicache.runtime.seen import RETURNED, STEP
from omnicache.runtime.streams import tensors_of


@value
class FrameMotion(Signal):
    """How much of what a site returns moves from frame to frame, in [0, 1]: ``sum |p[1:] - p[:-1]| / (sum |p[1:]| + sum |p[:-1]|)``
    (AdaCache's MoReg). None for pictures, and where it is not known how rows lie in frames."""

    where: Where  # pyright: ignore[reportIncompatibleVariableOverride]
    at = "site"
    against = "nothing"
    needs_grid = True

    def probe(self, module: Any, bound: Mapping[str, Any]) -> torch.Tensor | None:
        shown = next((t for t in tensors_of(bound.get(RETURNED)) if t.is_floating_point() and t.ndim >= 3), None)
        latent = bound[STEP].latent
        if shown is None or latent is None or latent.frames < 2:
            return None
        grid = Grid.of(latent, shown.shape[0], shown.shape[1], temporal=bool(shown.shape[1] == latent.frames))
        return grid.film(shown) if grid is not None and grid.fits(shown) else None

    def sums(self, now: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        moved, lies = now.diff(dim=1).abs(), now[:, 1:].abs() + now[:, :-1].abs()
        return torch.stack((moved.flatten(1).float().sum(1), lies.flatten(1).float().sum(1)))

    def change(self, sums: torch.Tensor) -> torch.Tensor:
        return change_of(sums)
