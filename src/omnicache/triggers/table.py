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

    def for_steps(self, total: int) -> Table:
        """The same noise levels, as nearly as there are such, are computed in runs of another length."""
        at = {i * total // len(self.steps) for i, mark in enumerate(self.steps) if mark != "."}
        return Table("".join("#" if i in at else "." for i in range(total)))
