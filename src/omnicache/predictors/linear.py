from __future__ import annotations

from omnicache.kernels import weighted_sum
from omnicache.policy import Entry, History, Predictor, Tensors
from omnicache.runtime.step import Step


class Linear(Predictor):
    """Base of predictors that are linear in their history: the numbers are made on the host, one kernel does the rest.

    A subclass says how many entries it wants (``keep``) and gives ``weights``.
    """

    keep: int = 1
    axis: str = "step"

    def weights(self, past: tuple[float, ...], now: float) -> tuple[float, ...]:
        """One weight for each of the ``past`` positions (newest first) for the value at position ``now``."""
        raise NotImplementedError

    def learn(self, history: History, step: Step, x: Tensors, y: Tensors) -> History:
        return (Entry(step, y), *history)[: self.keep]

    def weights_at(self, history: History, step: Step) -> tuple[float, ...]:
        """The weights of the history's entries for the value at ``step``."""
        return self.weights(tuple(e.step.position(self.axis) for e in history), step.position(self.axis))

    def estimate(self, history: History, step: Step, x: Tensors) -> Tensors:
        weights = self.weights_at(history, step)
        if weights[0] == 1.0 and not any(weights[1:]):
            return history[0].tensors
        return tuple(weighted_sum(column, weights) for column in zip(*(e.tensors for e in history), strict=True))
