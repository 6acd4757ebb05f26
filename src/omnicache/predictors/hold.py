from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from omnicache.policy import value
from omnicache.predictors.linear import Linear
from omnicache.schema import Range


@value
class Hold(Linear):
    """The last computed value, unchanged. ``keep`` above 1 remembers older ones for rehearsals; they carry no weight."""

    keep: Annotated[int, Range(1)] = 1
    exact_degree = 0

    def lower(self) -> Hold | None:
        return replace(self, keep=self.keep - 1) if self.keep > 1 else None

    def weights(self, past: tuple[float, ...], now: float) -> tuple[float, ...]:
        return (1.0,) + (0.0,) * (len(past) - 1)
