from __future__ import annotations

from typing import Annotated, Any

from omnicache.policy import Decision, Moment, Trigger, value
from omnicache.schema import Range


@value
class Ramp(Trigger):
    """An interval that changes along the run (ToCa, arXiv 2410.05317, released DiT setting).

    Steps are counted down, ``s = total - 1 - index``. After a computed step at ``s`` the interval is
    ``round(interval / (1 + slope - 2 slope s / total))``, and ``dense`` where ``low <= s / total < high``; the next computed
    step is the next ``s`` it divides. The first step is computed. An unknown ``total`` computes everything.
    """

    interval: Annotated[int, Range(1)] = 3
    slope: Annotated[float, Range(-0.99, 0.99)] = 0.4
    dense: Annotated[int, Range(1)] = 2
    low: Annotated[float, Range(0, 1)] = 0.2
    high: Annotated[float, Range(0, 1)] = 0.4

    def _interval(self, s: int, total: int) -> int:
        if self.low * total <= s < self.high * total:
            return self.dense
        return max(1, round(self.interval / (1 + self.slope - 2 * self.slope * s / total)))

    def decide(self, state: Any, moment: Moment) -> tuple[Decision, Any]:
        step = moment.step
        if step.total is None or moment.last is None or state is None:
            return Decision.COMPUTE, state
        due = (step.total - 1 - step.index) % state == 0
        return (Decision.COMPUTE if due else Decision.REUSE), state

    def settle(self, state: Any, moment: Moment, decision: Decision) -> Any:
        step = moment.step
        if decision is not Decision.COMPUTE or step.total is None:
            return state
        return self._interval(step.total - 1 - step.index, step.total)
