from __future__ import annotations

import math
from dataclasses import field
from typing import Annotated, Any

from omnicache.granularity import Block
from omnicache.policy import Decision, Moment, Remark, Seen, Trigger, Where, value
from omnicache.schema import Range
from omnicache.triggers._crossed import above


@value
class Verify(Trigger):
    """Drafts steps and checks them at one site; a draft that strays makes the next step, or this one, a computed one.

    SpeCa (arXiv 2509.11628). The threshold at progress ``p`` is ``max(floor, threshold * decay ** p)``. Between two computed
    steps there are at most ``longest`` drafts; those from number ``shortest`` on (counted from 0, and never the first) are
    checked. With ``redo`` every draft is checked, and a step that fails is computed on the spot.
    """

    threshold: Annotated[float, Range(0)] = 0.1
    decay: Annotated[float, Range(0, 1)] = 0.01
    floor: Annotated[float, Range(0)] = 0.01
    shortest: Annotated[int, Range(0)] = 2
    longest: Annotated[int, Range(0)] = 5
    redo: bool = False
    check: Where | None = field(default_factory=lambda: Block(-1))

    def limit(self, progress: float) -> float:
        """The largest error that is accepted at ``progress`` in [0, 1)."""
        return max(self.floor, self.threshold * self.decay**progress)

    def decide(self, state: Any, moment: Moment) -> tuple[Decision, Any]:
        drafts, strayed = moment.reused, bool(state)
        if moment.last is None or drafts >= self.longest or (strayed and drafts >= self.shortest):
            return Decision.COMPUTE, state
        checked = self.redo or drafts >= max(self.shortest, 1)
        return (Decision.CHECK if checked else Decision.REUSE), state

    def settle(self, state: Any, moment: Moment, decision: Decision) -> Any:
        return None if decision is Decision.COMPUTE else state

    def observe(self, state: Any, moment: Moment, error: float) -> tuple[bool, Any]:
        good = not math.isnan(error) and error <= self.limit(moment.step.progress)
        return good, bool(state) or not good  # of several guidance passes, one bad one is enough

    def why(self, seen: Seen) -> tuple[Remark, ...]:
        both = zip(seen.steps, seen.errors, strict=True)
        checked = [(e, self.limit(step.progress)) for step, e in both if e is not None and math.isfinite(e)]
        strayed = sorted((error, limit) for error, limit in checked if error > limit)
        if not strayed:
            return ()
        error, limit = strayed[len(strayed) // 2]
        said = f"{len(strayed)} of {len(checked)} checked drafts strayed: the median one by {error:.3g}, where {limit:.3g}"
        if limit <= self.floor:
            return (Remark(f"{said} was allowed", len(strayed), "floor", self.floor, above(error)),)
        return (Remark(f"{said} was allowed", len(strayed), "threshold", self.threshold, above(self.threshold * error / limit)),)
