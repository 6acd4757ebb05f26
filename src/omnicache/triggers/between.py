from __future__ import annotations

from typing import Annotated, Any

from omnicache.errors import OmniCacheError
from omnicache.policy import Decision, Moment, Trigger, value
from omnicache.runtime.step import Step
from omnicache.schema import Range


@value
class Between(Trigger):
    """Computes the steps from ``start`` up to, and without, ``stop``.

    Each end by itself: a whole number is an index, a fraction from 0.0 to 1.0 a share of the run (1 is the second step, 1.0 the
    end; above 1, 10.0 is 10). Where the length of the run is unknown, a step that may lie between the ends is computed.
    """

    start: Annotated[float, Range(0)] = 0
    stop: Annotated[float, Range(0)] = 1.0

    def __post_init__(self) -> None:
        for name in ("start", "stop"):
            given = getattr(self, name)
            if given <= 1:
                continue
            if not float(given).is_integer():
                raise OmniCacheError(f"Between: option {name}: {given!r} is neither an index nor a share (up to 1.0).")
            object.__setattr__(self, name, int(given))
        if isinstance(self.start, float) == isinstance(self.stop, float) and self.start >= self.stop:
            raise OmniCacheError(f"Between({self.start}, {self.stop}) has no step in it: `stop` must be above `start`.")

    def decide(self, state: Any, moment: Moment) -> tuple[Decision, Any]:
        inside = _reached(self.start, moment.step, unknown=True) and not _reached(self.stop, moment.step, unknown=False)
        return (Decision.COMPUTE if inside else Decision.REUSE), state


def _reached(end: float, step: Step, unknown: bool) -> bool:
    """Whether ``step`` lies at or after ``end``; ``unknown`` where that depends on the length of a run that nobody told."""
    if not isinstance(end, float):
        return step.index >= end
    if step.total is None:
        return unknown if 0 < end < 1 else end == 0
    return step.progress >= end
