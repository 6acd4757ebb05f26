from __future__ import annotations

import math
from typing import Any

import torch

from omnicache.errors import OmniCacheError
from omnicache.policy import Decision, Moment, Remark, Seen, Signal, Trigger, value
from omnicache.triggers._crossed import crossed


@value
class Accumulate(Trigger):
    """Computes when the accumulated change of a signal reaches ``threshold`` (TeaCache, arXiv 2411.19108, section 3.3).

    Each step adds ``p(change)`` for every sample, ``p`` a polynomial with ``coefficients`` from the highest degree down; the
    sample that has gathered most decides for all. An estimate below ``floor`` counts as ``floor``: less than no change means
    nothing; None adds it as it is, as released. A computation, whoever asked for it, sets the sums back to zero. A change
    that is unknown or not a number computes. Costs one number read from the device a step.
    """

    signal: Signal
    threshold: float
    coefficients: tuple[float, ...] = (1.0, 0.0)
    floor: float | None = 0.0

    def __post_init__(self) -> None:
        if not self.coefficients:
            raise OmniCacheError("Accumulate: option coefficients: at least one is needed; (1.0, 0.0) adds the change as it is.")

    @property
    def signals(self) -> tuple[Signal, ...]:  # type: ignore[override]
        return (self.signal,)

    def decide(self, state: Any, moment: Moment) -> tuple[Decision, Any]:
        change = moment.signals.get(self.signal)
        if change is None:
            return Decision.COMPUTE, state
        risen = self._risen(change)
        gathered = risen if state is None or state.shape != risen.shape else state + risen
        worst = float(gathered.max())
        due = math.isnan(worst) or worst >= self.threshold
        return (Decision.COMPUTE if due else Decision.REUSE), gathered

    def settle(self, state: Any, moment: Moment, decision: Decision) -> Any:
        return None if decision is Decision.COMPUTE else state

    def why(self, seen: Seen) -> tuple[Remark, ...]:
        rises = [float(self._risen(torch.tensor(x))) for x in seen.worst(self.signal)]
        return crossed(type(self.signal).__name__, self.threshold, rises)

    def _risen(self, change: torch.Tensor) -> torch.Tensor:
        """What a change adds."""
        risen = torch.zeros_like(change)
        for c in self.coefficients:
            risen = risen * change + c
        return risen if self.floor is None else risen.clamp_min(self.floor)
