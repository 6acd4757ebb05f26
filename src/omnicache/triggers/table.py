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
            f"make it again with num_inference_steps={total}, or carry it over: plan.for_steps({total})"
        )

    def for_steps(self, total: int) -> Table:
        """The same share of a run of another length is computed, and as much of it at each noise level."""
        n, old = len(self.steps), [i for i, mark in enumerate(self.steps) if mark != "."]
        count, at = round(len(old) * total / n), list[int]()
        for j in range(min(max(count, 1), total) if old else 0):
            passed, share = divmod(j * len(old) / count if count else 0.0, 1)
            here, after = ([*old, n][int(passed) + i] for i in (0, 1))
            step = round((here + share * (after - here)) * total / n)
            at.append(min(max(step, at[-1] + 1 if at else 0), total - 1))
        return Table("".join("#" if i in at else "." for i in range(total)))
