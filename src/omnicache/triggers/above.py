from __future__ import annotations

import math
from typing import Annotated, Any

from omnicache.policy import Decision, Moment, Remark, Seen, Signal, Trigger, value
from omnicache.schema import Range
from omnicache.triggers._crossed import crossed


@value
class Above(Trigger):
    """Computes when a signal reaches ``threshold`` in any sample; a signal that is unknown or not a number computes.

    Costs one number read from the device a step.

    Attributes:
        longest: the most reuses in a row; a value that wanders around the one that it is compared with may never get far from it.
        most: the most reuses of a run.
        budget: the most that the signals of all reused steps may come to.
    """

    signal: Signal
    threshold: float
    longest: Annotated[int, Range(0)] | None = None
    most: Annotated[int, Range(0)] | None = None
    budget: Annotated[float, Range(0)] | None = None

    @property
    def signals(self) -> tuple[Signal, ...]:  # type: ignore[override]
        return (self.signal,)

    def init(self) -> Any:
        return 0, 0.0, 0.0  # reuses, what their signals come to, and this step's

    def decide(self, state: Any, moment: Moment) -> tuple[Decision, Any]:
        reused, spent, _ = state
        found = moment.signals.get(self.signal)
        if found is None or _full(moment.reused, self.longest) or _full(reused, self.most):
            return Decision.COMPUTE, state
        worst = float(found.max())
        due = math.isnan(worst) or worst >= self.threshold or (self.budget is not None and spent + worst > self.budget)
        return (Decision.COMPUTE if due else Decision.REUSE), (reused, spent, worst)

    def settle(self, state: Any, moment: Moment, decision: Decision) -> Any:
        reused, spent, worst = state
        return state if decision is Decision.COMPUTE else (reused + 1, spent + worst, 0.0)

    def why(self, seen: Seen) -> tuple[Remark, ...]:
        return crossed(type(self.signal).__name__, self.threshold, seen.worst(self.signal))


def _full(count: int, most: int | None) -> bool:
    return most is not None and count >= most
