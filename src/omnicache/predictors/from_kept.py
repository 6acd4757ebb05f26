from __future__ import annotations

from omnicache.policy import History, Predictor, Tensors, value
from omnicache.runtime.step import Step


@value
class FromKept(Predictor):
    """Keeps nothing: a row that is not computed is made of rows that are, as the selector says (ToMeSD, interpolation)."""

    remembers = False
    copies = 0

    def learn(self, history: History, step: Step, x: Tensors, y: Tensors) -> History:
        return ()

    def estimate(self, history: History, step: Step, x: Tensors) -> Tensors:
        raise AssertionError("nothing is kept, so nothing can be estimated")
