from __future__ import annotations

import math
from typing import Any

import torch

from omnicache.granularity import Denoiser
from omnicache.policy import Decision, Moment, Remark, Seen, Trigger, value
from omnicache.signals import LatentChange, OutputChange, OutputSize
from omnicache.triggers._crossed import crossed

MOVED, SINCE = LatentChange("mean"), LatentChange("mean", "computed")
ANSWERED, SIZE = OutputChange(Denoiser(), "mean"), OutputSize(Denoiser())


@value
class Responds(Trigger):
    """Computes when what the model's output is expected to have changed by reaches ``threshold`` (EasyCache, S(31) to S(33)).

    How much the output answers to a change of the input, ``k = mean|v - v'| / mean|x - x'|`` of the two newest computed steps,
    changes slowly. Each step adds ``k mean|x_n - x_{n-1}| / mean|v|`` for every sample, with ``v`` the newest computed output; the
    sample that has gathered most decides. A computation sets the sums back to zero. Where two computed inputs were equal, ``k`` is
    not known, and unknown computes. Of guidance in two calls the first tells. Costs a few numbers read from the device a step.
    """

    threshold: float
    signals = (MOVED, SINCE, ANSWERED, SIZE)

    def init(self) -> Any:
        return None, None, None  # what was gathered, k, and how far the newest computed input lies from the one before

    def decide(self, state: Any, moment: Moment) -> tuple[Decision, Any]:
        gathered, k, since = state
        moved, distance, answered, size = (moment.signals.get(s) for s in self.signals)
        if moved is None or answered is None or size is None:
            return Decision.COMPUTE, (None, None, distance)
        batch = len(moved)
        if since is not None:  # the step before was computed: only now its output is known
            k, since = answered[:batch] / since, None
        if k is None or k.shape != moved.shape:
            return Decision.COMPUTE, (None, None, distance)
        risen = torch.where(moved == 0, moved, k * moved / size[:batch])  # an input that stands still needs no k
        gathered = risen if gathered is None else gathered + risen
        worst = float(gathered.max())
        due = not math.isfinite(worst) or worst >= self.threshold
        return (Decision.COMPUTE if due else Decision.REUSE), (gathered, k, distance)

    def settle(self, state: Any, moment: Moment, decision: Decision) -> Any:
        gathered, k, distance = state
        return (None, k, distance) if decision is Decision.COMPUTE else (gathered, k, None)

    def why(self, seen: Seen) -> tuple[Remark, ...]:
        state, rises = self.init(), []
        for step, signals, computed in zip(seen.steps, seen.signals, seen.computed, strict=True):  # as it was, once more
            before = state[0]
            _, state = self.decide(state, Moment(step, signals=signals))
            if state[0] is not None:
                rises.append(float((state[0] if before is None else state[0] - before).max()))
            state = self.settle(state, Moment(step), Decision.COMPUTE if computed else Decision.REUSE)
        return crossed("The expected change of the output", self.threshold, rises)
