from __future__ import annotations

from typing import Annotated, Any

from omnicache.policy import Decision, Moment, Remark, Seen, Trigger, value
from omnicache.schema import Range


@value
class First(Trigger):
    """Computes the first ``count`` steps of a run."""

    count: Annotated[int, Range(0)] = 1

    def decide(self, state: Any, moment: Moment) -> tuple[Decision, Any]:
        return (Decision.COMPUTE if moment.step.index < self.count else Decision.REUSE), state

    def why(self, seen: Seen) -> tuple[Remark, ...]:
        total = len(seen.steps)
        taken = min(self.count, total)
        said = f"{taken} of {total} steps are the first ones, which are always computed"
        return (Remark(said, taken, "warmup", self.count, max(1, total // 6)),) if taken > max(1, total // 6) else ()
