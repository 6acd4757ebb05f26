from __future__ import annotations

import math
from typing import Annotated, Any

from omnicache.policy import Decision, Moment, Signal, Trigger, value
from omnicache.schema import Range


@value
class Above(Trigger):
    """Computes when a signal reaches ``threshold`` in any sample; a signal that is unknown or not a number computes.

    ``longest`` is the most reuses in a row, None for no limit: a value that wanders around the one that it is compared with may
    never get far from it. Costs one number read from the device a step.
    """

    signal: Signal
    threshold: float
    longest: Annotated[int, Range(0)] | None = None

    @property
    def signals(self) -> tuple[Signal, ...]:  # type: ignore[override]
        return (self.signal,)

    def decide(self, state: Any, moment: Moment) -> tuple[Decision, Any]:
        found = moment.signals.get(self.signal)
        if found is None or (self.longest is not None and moment.reused >= self.longest):
            return Decision.COMPUTE, state
        worst = float(found.max())
        return (Decision.COMPUTE if math.isnan(worst) or worst >= self.threshold else Decision.REUSE), state
