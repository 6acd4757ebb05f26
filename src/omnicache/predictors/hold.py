from __future__ import annotations

from omnicache.policy import value
from omnicache.predictors.linear import Linear


@value
class Hold(Linear):
    """The last computed value, unchanged. ``keep`` above 1 remembers older ones for rehearsals; they carry no weight."""

    keep: int = 1
    exact_degree = 0

    def weights(self, past: tuple[float, ...], now: float) -> tuple[float, ...]:
        return (1.0,) + (0.0,) * (len(past) - 1)
