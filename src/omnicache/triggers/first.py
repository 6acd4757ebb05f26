from __future__ import annotations

from typing import Any

from omnicache.policy import Decision, Moment, Trigger, value


@value
class First(Trigger):
    """Computes the first ``count`` steps of a run."""

    count: int = 1

    def decide(self, state: Any, moment: Moment) -> tuple[Decision, Any]:
        return (Decision.COMPUTE if moment.step.index < self.count else Decision.REUSE), state
