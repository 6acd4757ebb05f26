from __future__ import annotations

from typing import Annotated, Any

import torch

from omnicache.errors import OmniCacheError
from omnicache.policy import Chosen, Rows, Selector, value
from omnicache.runtime.step import Step
from omnicache.schema import Range
from omnicache.weights import Weights


@value
class LinearGate(Selector):
    """Each sample decides for itself whether a module runs, by a linear gate on what the module is given (LazyDiT).

    ``s = sigmoid(sum over rows of w_n . z_row)``: a sum, not a mean, and no bias, as released, so a gate that was fitted at one
    size does not hold at another. A sample is computed where ``s >= threshold``. Waits for the device at each module that it
    decides on, since how many samples are computed must be known.

    Attributes:
        weights: ``(steps, width)``, a vector ``w_n`` for each step.
        threshold: of ``s``. 0 computes all.
    """

    weights: Weights
    threshold: Annotated[float, Range(0)] = 0.5

    mixes = True  # a sample's rows look at each other only

    def __post_init__(self) -> None:
        if len(self.weights.shape) != 2:
            raise OmniCacheError(f"LinearGate: option weights: a vector for each step is needed, not {self.weights}.")

    def for_steps(self, total: int) -> LinearGate:
        raise OmniCacheError(f"gates that are fitted to {self.weights.shape[0]} steps hold for no others")

    def logits(self, step: Step, x: torch.Tensor) -> torch.Tensor | None:
        """The gate before its sigmoid, by sample, of ``x`` ``(samples, rows, width)``; None where it was not fitted for this."""
        steps, width = self.weights.shape
        if step.index >= steps or x.shape[-1] != width:
            return None
        w = self.weights.on(x.device, torch.float32)[step.index]
        return x.float().sum(1) @ w

    def choose(self, state: Any, site: Any, step: Step, rows: Rows) -> tuple[Chosen | None, Any]:
        x = rows.x
        found = self.logits(step, x)
        if found is None:
            computed = torch.arange(len(x), device=x.device)
        else:  # NaN is computed
            computed = (~(torch.sigmoid(found) < self.threshold)).nonzero().flatten()
        if not len(computed):
            return None, state
        index = computed[:, None] * x.shape[1] + torch.arange(x.shape[1], device=x.device)
        return Chosen(index, whole=True), state
