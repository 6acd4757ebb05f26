from __future__ import annotations

from typing import Any

from omnicache.errors import OmniCacheError
from omnicache.policy import Decision, Moment, Trigger, value


@value
class Outside(Trigger):
    """Computes the steps whose time does not lie between ``low`` and ``high``, ends left out (PAB, arXiv 2408.12588).

    Times are the model's timesteps, from about 1000 down to 0. Where those of a run go from 1 down to 0, as some flow models
    count, they are taken times 1000. A time that is not known is computed.
    """

    low: float = 100.0
    high: float = 800.0

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise OmniCacheError(f"Outside({self.low}, {self.high}): the lower time comes first.")

    def decide(self, state: Any, moment: Moment) -> tuple[Decision, Any]:
        time = moment.step.time
        if time is None:
            return Decision.COMPUTE, state
        largest = time if state is None else max(state, time)
        inside = self.low < (1000 * time if largest <= 1 else time) < self.high
        return (Decision.REUSE if inside else Decision.COMPUTE), largest
