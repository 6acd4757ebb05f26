from __future__ import annotations

from itertools import pairwise

from omnicache.errors import OmniCacheError
from omnicache.policy import History, value
from omnicache.predictors.linear import Linear
from omnicache.runtime.step import Step

Curve = tuple[tuple[float, float], ...]


@value
class Extrapolate(Linear):
    """``new + w (new - old)`` of the last two computed values, with one weight for any gap between them (FasterCache).

    Section 3.2 of arXiv 2410.19355. A single value is held. With ``w`` of 0.5 and values computed every other step it is a
    straight line.

    Attributes:
        weight: the number w; or a curve over the run, of pairs (share of the run, w), straight between them and level outside.
            In a run of unknown length a curve is at its start.
    """

    weight: float | Curve = 0.5
    keep = 2
    exact_degree = 0

    def __post_init__(self) -> None:
        if isinstance(self.weight, tuple):
            shares = [share for share, _ in self.weight]
            if not shares or not all(a < b for a, b in pairwise(shares)):
                raise OmniCacheError(f"Extrapolate: the shares of option weight must rise along the curve: {self.weight}.")

    def at(self, step: Step) -> float:
        """The weight at a step."""
        if not isinstance(self.weight, tuple):
            return self.weight
        here, (first, level) = step.progress, self.weight[0]
        if here <= first:
            return level
        for (a, v), (b, w) in pairwise(self.weight):
            if here <= b:
                return v + (w - v) * (here - a) / (b - a)
        return self.weight[-1][1]

    def lower(self) -> Linear | None:
        from omnicache.predictors.hold import Hold

        return Hold()

    def weights_at(self, history: History, step: Step) -> tuple[float, ...]:
        w = self.at(step) if len(history) > 1 else 0.0
        return (1 + w, *(-w,) * (len(history) > 1), *(0.0,) * (len(history) - 2))
