from __future__ import annotations

from typing import Annotated, Any

from omnicache.policy import Decision, Moment, Trigger, value
from omnicache.schema import Range


@value
class First(Trigger):
    """Computes the first ``count`` steps of a run."""

    count: Annotated[int, Range(0)] = 1

    def decide(self, state: Any, moment: Moment) -> tuple[Decision, Any]:
        return (Decision.COMPUTE if moment.step.index < self.count else Decision.REUSE), state
