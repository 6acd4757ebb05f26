from __future__ import annotations

from typing import Annotated, Any

from omnicache.policy import Decision, Moment, Remark, Seen, Trigger, value
from omnicache.schema import Range


@value
class Every(Trigger):
    """Computes one step in ``interval``.

    Without ``phase``: ``interval`` steps after the last computed one, whoever asked for that (after ``First(3)``,
    ``Every(5)`` computes 7, 12, ...). With ``phase``: the steps whose index leaves that remainder. ``backwards`` counts the
    index from the end (0 is the last step), as samplers that count timesteps down do; where the length of the run is unknown
    it counts from the front.
    """

    interval: Annotated[int, Range(1)]
    phase: int | None = None
    backwards: bool = False

    def decide(self, state: Any, moment: Moment) -> tuple[Decision, Any]:
        step = moment.step
        if self.phase is None:
            due = moment.last is None or step.index - moment.last.index >= self.interval
        else:
            index = step.total - 1 - step.index if self.backwards and step.total is not None else step.index
            due = index % self.interval == self.phase % self.interval
        return (Decision.COMPUTE if due else Decision.REUSE), state

    def why(self, seen: Seen) -> tuple[Remark, ...]:
        said = "At an interval of 1 every step is computed"
        return (Remark(said, len(seen.steps), "interval", 1, 2),) if self.interval == 1 else ()
