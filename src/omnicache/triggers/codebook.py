from __future__ import annotations

from typing import Annotated, Any

import torch

from omnicache.errors import OmniCacheError
from omnicache.policy import Decision, Moment, Signal, Trigger, value
from omnicache.schema import Range


@value
class Codebook(Trigger):
    """Looks up, from how fast a feature changed between the last two computed steps, when to compute next (AdaCache, S(37)).

    The rate is the change divided by the steps that it took; with ``motion`` it is multiplied by ``m + |m'|``, where ``m`` is what
    moves in the frames, against ``still``, to the eighth power, and ``m'`` how fast that changes (MoReg, as released; S(38) adds
    them, the paper multiplies). The sample that changes most decides.

    Attributes:
        signal: the relative change of the feature between computed steps.
        limits: ascending; a rate below the first of them that is above it has that one's step.
        steps: as many, and one more for rates above all limits.
        motion: what moves, in [0, 1]; None for none.
        window: shares of the run between which ``m`` counts; outside it is 1.
    """

    signal: Signal
    limits: tuple[float, ...]
    steps: tuple[int, ...]
    motion: Signal | None = None
    still: Annotated[float, Range(1e-6)] = 0.385
    window: tuple[float, float] = (0.1, 0.9)

    def __post_init__(self) -> None:
        if len(self.steps) != len(self.limits) + 1 or min(self.steps) < 1 or list(self.limits) != sorted(self.limits):
            raise OmniCacheError(
                "Codebook: `steps` has one entry, of at least 1, for each of the ascending `limits`, and one more for what is "
                f"above them all; {len(self.steps)} and {len(self.limits)} were given."
            )

    @property
    def signals(self) -> tuple[Signal, ...]:  # type: ignore[override]
        return (self.signal,) if self.motion is None else (self.signal, self.motion)

    def init(self) -> Any:
        return None, None, 1, None  # the last computed step, the one before it, the steps from one to the next, and the last m

    def decide(self, state: Any, moment: Moment) -> tuple[Decision, Any]:
        last, before, wait, moved = state
        if moment.last is None:
            return Decision.COMPUTE, state
        if moment.last != last:
            before, last = last, moment.last
            wait, moved = self._wait(moment, last.index - before.index if before is not None else 0, moved)
        due = moment.step.index - last.index >= wait
        return (Decision.COMPUTE if due else Decision.REUSE), (last, before, wait, moved)

    def _wait(self, moment: Moment, gap: int, moved: torch.Tensor | None) -> tuple[int, torch.Tensor | None]:
        """Steps until the next computed one, and what moves now."""
        change = moment.signals.get(self.signal)
        shown = moment.signals.get(self.motion) if self.motion is not None else None
        now = (shown / self.still) ** 8 if shown is not None else None
        if change is None or not gap:
            return 1, now
        rate = change / gap
        if now is not None:
            inside = self.window[0] <= moment.step.progress < self.window[1]
            grown = 10 * (now - moved).abs() / gap if moved is not None and moved.shape == now.shape else torch.zeros_like(now)
            factor = (now if inside else torch.ones_like(now)) + grown
            rate = rate * (factor if factor.shape == rate.shape else factor.max())
        worst = float(rate.max())
        return next((n for limit, n in zip(self.limits, self.steps, strict=False) if worst < limit), self.steps[-1]), now
