from __future__ import annotations

from typing import Any

from omnicache.errors import OmniCacheError
from omnicache.policy import Decision, Moment, Trigger, value


@value
class Every(Trigger):
    """Computes one step in ``interval``.

    Without ``phase``: ``interval`` steps after the last computed one, whoever asked for that (after ``First(3)``,
    ``Every(5)`` computes 7, 12, ...). With ``phase``: the steps whose index leaves that remainder. ``backwards`` counts the
    index from the end (0 is the last step), as samplers that count timesteps down do; where the length of the run is unknown
    it counts from the front.
    """

    interval: int
    phase: int | None = None
    backwards: bool = False

    def __post_init__(self) -> None:
        if self.interval < 1:
            raise OmniCacheError(f"Every(interval) needs a whole number from 1 on, not {self.interval}.")

    def decide(self, state: Any, moment: Moment) -> tuple[Decision, Any]:
        step = moment.step
        if self.phase is None:
            due = moment.last is None or step.index - moment.last.index >= self.interval
        else:
            index = step.total - 1 - step.index if self.backwards and step.total is not None else step.index
            due = index % self.interval == self.phase % self.interval
        return (Decision.COMPUTE if due else Decision.REUSE), state
