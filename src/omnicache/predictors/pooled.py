from __future__ import annotations

from dataclasses import field, replace
from typing import Annotated

from omnicache.policy import History, Predictor, Tensors, value
from omnicache.predictors.hold import Hold
from omnicache.runtime.step import Step
from omnicache.schema import Range


@value
class Pooled(Predictor):
    """Predicts for both branches of guidance the mean of their values, of those from step ``since`` on (T-GATE, VCUT)."""

    inner: Predictor = field(default_factory=Hold)
    since: Annotated[int, Range(0)] = 0

    @property
    def pools(self) -> int:  # type: ignore[override]
        return self.since

    @property
    def needs_input(self) -> bool:  # type: ignore[override]
        return self.inner.needs_input

    @property
    def exact_degree(self) -> int | None:  # type: ignore[override]
        return self.inner.exact_degree

    def misfit(self, y: Tensors) -> str | None:
        return self.inner.misfit(y)

    def lower(self) -> Pooled | None:
        inner = self.inner.lower()
        return None if inner is None else replace(self, inner=inner)

    def learn(self, history: History, step: Step, x: Tensors, y: Tensors) -> History:
        return self.inner.learn(history, step, x, y)

    def estimate(self, history: History, step: Step, x: Tensors) -> Tensors:
        return self.inner.estimate(history, step, x)
