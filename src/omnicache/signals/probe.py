from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import torch

from omnicache.policy import value
from omnicache.runtime.seen import ENTERED, moving
from omnicache.schema import Choice, Range
from omnicache.signals.change import Change, Norm


@value
class ProbeChange(Change):
    """Relative change of what the first blocks make of the stream, before the others decide whether to run.

    Attributes:
        depth: so many blocks are looked at, and run at every step; of 0 what the first block is given.
        of: "increment" is what they have added (First-Block-Cache, DBCache), "output" what they hand on (DiCache), "excess" by how
            much the change of that differs from the change of what they are given.
        against: the last step that was computed, or the last one "visited".
    """

    depth: Annotated[int, Range(0)] = 1
    of: Annotated[str, Choice(("increment", "output", "excess"))] = "increment"
    against: Annotated[str, Choice(("computed", "visited"))] = "computed"  # pyright: ignore[reportIncompatibleVariableOverride]
    norm: Norm = "l1"

    @property
    def at(self) -> int:  # type: ignore[override]
        return self.depth

    def probe(self, module: Any, bound: Mapping[str, Any]) -> torch.Tensor | None:
        found, entered = moving(bound), bound.get(ENTERED)
        if not found or self.of == "output" or entered is None or entered.shape != found[0].shape:
            return found[0] if found else None
        return found[0] - entered if self.of == "increment" else torch.stack((found[0], entered), 1)

    def sums(self, now: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        if self.of != "excess":
            return super().sums(now, before)
        return torch.cat([Change.sums(self, a, b) for a, b in zip(now.unbind(1), before.unbind(1), strict=True)])

    def change(self, sums: torch.Tensor) -> torch.Tensor:
        if self.of != "excess":
            return super().change(sums)
        handed_on, given = (Change.change(self, part) for part in sums.split(2))
        return (handed_on - given).abs()
