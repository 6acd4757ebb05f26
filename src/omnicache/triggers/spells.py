from __future__ import annotations

import math
from typing import Annotated, Any

from omnicache.policy import Decision, Moment, Trigger, value
from omnicache.schema import Range


@value
class Spells(Trigger):
    """Reuses ``length`` steps after each of some times, and computes all others (the MLP table of PAB, arXiv 2408.12588).

    Times are the model's timesteps, from about 1000 down to 0, or those over 1000 where a run counts from 1 down to 0. Each means
    the step that lies nearest, as far as the gap to the step before tells; the release wants the very time, and passes over those
    that a schedule does not list. A time that is not known is computed.
    """

    times: tuple[float, ...]
    length: Annotated[int, Range(0)] = 2

    def init(self) -> Any:
        return None, 0.0, 0.0, 0  # the largest time, the last one, down to where times were looked for, steps left

    def decide(self, state: Any, moment: Moment) -> tuple[Decision, Any]:
        largest, before, above, left = state
        time = moment.step.time
        if time is None:
            return Decision.COMPUTE, self.init()
        if largest is None:  # what lies above the first step is over
            largest, before, above = time, time, math.nextafter(time, math.inf)
        largest, scale = max(largest, time), 1000 if max(largest, time) <= 1 else 1
        below = min(above, time - (before - time) / 2)
        if any(below * scale <= t < above * scale for t in self.times):
            return Decision.COMPUTE, (largest, time, below, self.length)
        return (Decision.REUSE if left else Decision.COMPUTE), (largest, time, below, max(left - 1, 0))
