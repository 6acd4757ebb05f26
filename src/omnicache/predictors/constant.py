from __future__ import annotations

import torch

from omnicache.policy import Entry, History, Predictor, Tensors, value
from omnicache.runtime.step import Step


@value
class Constant(Predictor):
    """A value whose rows are all the same, and stay so: one of them is kept, ``(batch, 1, width)`` of ``(batch, rows, width)``.

    Attention to a single token is one: the softmax over one key is 1, whatever the query, so every row is ``W_o W_v e + b_o``
    (VCUT, arXiv 2407.19205). Values whose rows differ are refused, which is looked at whenever one is computed.
    """

    exact_degree = 0

    def misfit(self, y: Tensors) -> str | None:
        alike = [bool(((t - t[:, :1]).abs().amax() <= _slack(t) * t.abs().amax()).all()) for t in y if t.ndim >= 3]
        if all(alike):
            return None
        return "its rows differ, so it looks at more than one token, and is not the same at every step; there t-gate does"

    def learn(self, history: History, step: Step, x: Tensors, y: Tensors) -> History:
        return (Entry(step, tuple(t[:, :1].clone().expand_as(t) if t.ndim >= 3 else t for t in y)),)

    def estimate(self, history: History, step: Step, x: Tensors) -> Tensors:
        return tuple(t.contiguous() for t in history[0].tensors)


def _slack(t: torch.Tensor) -> float:
    return 16 * torch.finfo(t.dtype).eps
