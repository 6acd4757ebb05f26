from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any

import torch

from omnicache.granularity import Blocks
from omnicache.policy import Decision, Moment, Signal, Trigger, value
from omnicache.schema import Range
from omnicache.signals import OutputChange


@value
class Foresight(Trigger):
    """Decides layer by layer: one may be reused whose output changes no more than it did when the warm-up ended (Foresight, S(40)).

    Reusing the output of one layer makes all before it irrelevant. So all are reused up to the deepest that may be, and those after
    it are computed; if none may be, the step is. Costs one small tensor read from the device a step.

    Attributes:
        signal: the change of each layer's output, from one computation to the next; the layers are those of the policy.
        scale: gamma: a layer may be reused if its change is at most so many times that of the warm-up.
        warmup: computed steps at the start; others must see to it that they are computed.
        terms: changes at the end of the warm-up that count, each a tenth of the one after it; 1 as released, 3 in the paper.
    """

    signal: Signal = field(default_factory=lambda: OutputChange(Blocks(), norm="mse", each=True))
    scale: Annotated[float, Range(0)] = 1.0
    warmup: Annotated[int, Range(2)] = 8
    terms: Annotated[int, Range(1)] = 3
    by_site = True

    @property
    def signals(self) -> tuple[Signal, ...]:  # type: ignore[override]
        return (self.signal,)

    def init(self) -> Any:
        return (), -1  # changes of the warm-up, the newest first; and the deepest layer that is reused

    def decide(self, state: Any, moment: Moment) -> tuple[Decision, Any]:
        seen, _ = state
        found = moment.signals.get(self.signal)
        now = found.detach().double().cpu() if found is not None else None
        if moment.step.index <= self.warmup and now is not None:
            seen = (now, *(change for change in seen if change.shape == now.shape))[: self.terms]
        deepest = -1
        if moment.step.index >= self.warmup and now is not None and seen and seen[0].shape == now.shape:
            allowed = self.scale * torch.stack([change / 10**j for j, change in enumerate(seen)]).sum(0)
            still = (now <= allowed).all(-1).nonzero()  # what is not a number is not at most anything
            deepest = int(still[-1]) if len(still) else -1
        return (Decision.COMPUTE if deepest < 0 else Decision.REUSE), (seen, deepest)

    def spares(self, state: Any, site: int) -> bool:
        return site <= state[1]
