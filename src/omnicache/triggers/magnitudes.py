from __future__ import annotations

from typing import Annotated, Any

from omnicache.errors import OmniCacheError
from omnicache.policy import Decision, Moment, Remark, Seen, Trigger, value
from omnicache.schema import Range
from omnicache.triggers._crossed import crossed

Ratio = Annotated[float, Range(0)]


@value
class Magnitudes(Trigger):
    """Computes when the lengths of increments, as calibrated, have drifted from the kept one's (MagCache, S(29) and S(30)).

    The product of ``ratios`` since the last computed step, ``r``, estimates how much longer an increment is than the kept one. Each
    step adds ``|1 - r|``; a step is computed when that sum is above ``threshold``, or after ``longest`` reuses in a row. Looks at
    no tensors. In a run of another length the ratio nearest in progress is taken; an unknown length computes.

    Attributes:
        ratios: one a step: the length of its increment over that of the step before; the first means nothing.
        strict: whether a sum of just ``threshold`` is computed, as released for some models.
    """

    ratios: tuple[Ratio, ...]
    threshold: float = 0.12
    longest: Annotated[int, Range(0)] = 4
    strict: bool = False

    def __post_init__(self) -> None:
        if not self.ratios:
            raise OmniCacheError("Magnitudes: option ratios: one a step is needed; omnicache.calibrate measures them.")

    def init(self) -> Any:
        return 1.0, 0, 0.0  # the product, the steps, and the sum since the last computed step

    def decide(self, state: Any, moment: Moment) -> tuple[Decision, Any]:
        total = moment.step.total
        if total is None:
            return Decision.COMPUTE, state
        grown, steps, drift = state
        grown, steps = grown * self._ratio(moment.step.index, total), steps + 1
        drift += abs(1 - grown)
        small = drift < self.threshold if self.strict else drift <= self.threshold
        return (Decision.REUSE if small and steps <= self.longest else Decision.COMPUTE), (grown, steps, drift)

    def settle(self, state: Any, moment: Moment, decision: Decision) -> Any:
        return self.init() if decision is Decision.COMPUTE else state

    def why(self, seen: Seen) -> tuple[Remark, ...]:
        rises = [abs(1 - self._ratio(step.index, step.total)) for step in seen.steps[1:] if step.total is not None]
        return crossed("The calibrated drift", self.threshold, rises)

    def _ratio(self, index: int, total: int) -> float:
        """Of the step that is as far along a run of ``total`` steps."""
        nearest = round(index * (len(self.ratios) - 1) / max(total - 1, 1))
        return self.ratios[min(nearest, len(self.ratios) - 1)]
