from __future__ import annotations

from typing import Annotated, Any

from omnicache.policy import Decision, Moment, Remark, Seen, Trigger, value
from omnicache.schema import Range


@value
class Last(Trigger):
    """Computes the last ``count`` steps of a run whose length is known (it may never come: a run can be cut short)."""

    count: Annotated[int, Range(0)] = 1

    def decide(self, state: Any, moment: Moment) -> tuple[Decision, Any]:
        total = moment.step.total
        due = total is not None and moment.step.index >= total - self.count
        return (Decision.COMPUTE if due else Decision.REUSE), state

    def why(self, seen: Seen) -> tuple[Remark, ...]:
        total = len(seen.steps)
        taken = min(self.count, total)
        said = f"{taken} of {total} steps are the last ones, which are always computed"
        return (Remark(said, taken, "tail", self.count, max(1, total // 6)),) if taken > max(1, total // 6) else ()
