from __future__ import annotations

from typing import Any

from omnicache.policy import Decision, Moment, Trigger, value


@value
class Between(Trigger):
    """Computes the steps ``start <= index < stop``; numbers below 1 that are not whole are shares of the run."""

    start: float = 0
    stop: float = 1.0

    def decide(self, state: Any, moment: Moment) -> tuple[Decision, Any]:
        shares = isinstance(self.start, float) or isinstance(self.stop, float)
        here = moment.step.progress if shares else moment.step.index
        return (Decision.COMPUTE if self.start <= here < self.stop else Decision.REUSE), state
