from __future__ import annotations

from typing import Any

from omnicache.policy import Decision, Moment, Trigger, value


@value
class At(Trigger):
    """Computes the steps of these indices, whatever the length of the run."""

    steps: tuple[int, ...]

    def decide(self, state: Any, moment: Moment) -> tuple[Decision, Any]:
        return (Decision.COMPUTE if moment.step.index in self.steps else Decision.REUSE), state
