from __future__ import annotations

from collections.abc import Mapping

import torch

from omnicache.errors import OmniCacheError
from omnicache.policy import Decision, Moment, Signal, Trigger
from omnicache.runtime.step import Step


class TriggerState:
    """One trigger in one run: its own state and the step it decided last. All branches of a step share the decision."""

    def __init__(self, trigger: Trigger, at_once: bool = False):
        """``at_once``: whether the first step may be reused, since nothing that it governs remembers anything."""
        self.trigger, self.state, self.at_once = trigger, trigger.init(), at_once
        self.last: Step | None = None
        self.computed: list[Step] = []
        self.reused = 0
        self.wanted = False  # whether it ever asked for a reuse
        self.decided: int | None = None
        self.decision = Decision.COMPUTE
        self.moment = Moment(Step(0))

    def decide(self, step: Step, signals: Mapping[Signal, torch.Tensor | None]) -> Decision:
        if self.decided != step.index:
            self.moment = Moment(step, self.last, self.reused, signals)
            decision, self.state = self.trigger.decide(self.state, self.moment)
            if not isinstance(decision, Decision):
                raise OmniCacheError(
                    f"{type(self.trigger).__name__}.decide must return (Decision, state), not ({decision!r}, state)."
                )
            self.settle(Decision.COMPUTE if self.last is None and not self.at_once else decision)
        return self.decision

    def settle(self, decision: Decision) -> None:
        step = self.moment.step
        self.decided, self.decision = step.index, decision
        self.state = self.trigger.settle(self.state, self.moment, decision)
        if decision is Decision.COMPUTE:
            self.last, self.reused = step, 0
            self.computed.append(step)
        else:
            self.reused, self.wanted = self.reused + 1, True
