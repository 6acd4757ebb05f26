from __future__ import annotations

from dataclasses import field, replace

from omnicache.kernels import weighted_sum
from omnicache.policy import History, Predictor, Tensors, value
from omnicache.predictors.hold import Hold
from omnicache.predictors.linear import Linear
from omnicache.runtime.step import Step


@value
class Residual(Predictor):
    """Predicts what a site adds to its input, ``y - x``, and adds it to the fresh input.

    A site without an input of its own shape (the deep part of a U-Net) has no increment: there its value itself is predicted.
    """

    inner: Predictor = field(default_factory=Hold)
    needs_input = True

    @property
    def exact_degree(self) -> int | None:  # type: ignore[override]
        return self.inner.exact_degree

    def lower(self) -> Residual | None:
        inner = self.inner.lower()
        return None if inner is None else replace(self, inner=inner)

    def learn(self, history: History, step: Step, x: Tensors, y: Tensors) -> History:
        return self.inner.learn(history, step, (), tuple(b - a for a, b in zip(x, y, strict=True)) if x else y)

    def estimate(self, history: History, step: Step, x: Tensors) -> Tensors:
        if not x:
            return self.inner.estimate(history, step, ())
        if isinstance(self.inner, Linear):  # one sum, with the input as a term of it
            weights = (1.0, *self.inner.weights_at(history, step))
            columns = zip(x, *(e.tensors for e in history), strict=True)
            return tuple(weighted_sum(column, weights) for column in columns)
        return tuple(a + d for a, d in zip(x, self.inner.estimate(history, step, ()), strict=True))
