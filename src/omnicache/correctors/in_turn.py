from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from omnicache.policy import Corrector, Sampling, value
from omnicache.runtime.step import Step


@value
class InTurn(Corrector):
    """One corrector, then another."""

    a: Corrector
    b: Corrector

    @property
    def rehearses(self) -> bool:
        return self.a.rehearses or self.b.rehearses

    @property
    def samples(self) -> bool:
        return self.a.samples or self.b.samples

    def init(self) -> Any:
        return self.a.init(), self.b.init()

    def misfit(self, scheduler: Any) -> str | None:
        return self.a.misfit(scheduler) or self.b.misfit(scheduler)

    def rehearse(self, step: Step) -> tuple[int, ...]:
        return (*self.a.rehearse(step), *self.b.rehearse(step))

    def learn(self, state: Any, step: Step, truth: torch.Tensor, rehearsed: tuple[torch.Tensor, ...]) -> Any:
        own = len(self.a.rehearse(step))
        return self.a.learn(state[0], step, truth, rehearsed[:own]), self.b.learn(state[1], step, truth, rehearsed[own:])

    def apply(self, state: Any, step: Step, estimate: torch.Tensor) -> torch.Tensor:
        return self.b.apply(state[1], step, self.a.apply(state[0], step, estimate))

    def sample(self, state: Any, given: Sampling) -> tuple[torch.Tensor, torch.Tensor, Any]:
        output, sample, first = self.a.sample(state[0], given)
        output, sample, second = self.b.sample(state[1], replace(given, output=output, sample=sample))
        return output, sample, (first, second)

    def lag(self, state: Any) -> float:
        return self.a.lag(state[0]) * self.b.lag(state[1])
