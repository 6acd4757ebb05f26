from __future__ import annotations

import torch

from omnicache.errors import OmniCacheError
from omnicache.policy import Entry, History, Predictor, Tensors, value
from omnicache.runtime.step import Step
from omnicache.weights import Weights


@value
class Affine(Predictor):
    """A fitted line in place of a site: ``x + W x + b``, whatever was computed before (FastCache's skipped block).

    Attributes:
        maps: for each tensor that the site gives ``(width + 1, width)``: ``W`` transposed, with ``b`` below it. None: the site
            gives back what it was given.
    """

    maps: tuple[Weights, ...] = ()

    needs_input = True
    copies = 0
    exact_degree = None

    def __post_init__(self) -> None:
        if any(len(w.shape) != 2 or w.shape[0] != w.shape[1] + 1 for w in self.maps):
            raise OmniCacheError("Affine: option maps: a square matrix with one more row is needed for each tensor.")

    def learn(self, history: History, step: Step, x: Tensors, y: Tensors) -> History:
        return (Entry(step, tuple(t.new_empty(0) for t in y)),)  # that it was computed once, and nothing of it

    def estimate(self, history: History, step: Step, x: Tensors) -> Tensors:
        if not self.maps:
            return x
        return tuple(_mapped(t, w) for t, w in zip(x, self.maps, strict=True))


def _mapped(x: torch.Tensor, fit: Weights) -> torch.Tensor:
    line = fit.on(x.device, x.dtype)
    return x + torch.addmm(line[-1], x.reshape(-1, x.shape[-1]), line[:-1]).view_as(x)


__all__ = ["Affine"]
