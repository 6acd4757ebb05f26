from __future__ import annotations

from typing import Any

from omnicache.policy import Decision, Moment, Trigger, value


@value
class Table(Trigger):
    """Computes the steps marked ``#`` in ``steps``, reuses those marked ``.``. Made for runs of exactly that length."""

    steps: str

    def decide(self, state: Any, moment: Moment) -> tuple[Decision, Any]:
        reuse = moment.step.index < len(self.steps) and self.steps[moment.step.index] == "."
        return (Decision.REUSE if reuse else Decision.COMPUTE), state

    def misfit(self, total: int | None) -> str | None:
        if total is None or total == len(self.steps):
            return None
        return (
            f"the plan's schedule is for {len(self.steps)} steps and this run has {total}; "
            f"calibrate again with num_inference_steps={total}"
        )
