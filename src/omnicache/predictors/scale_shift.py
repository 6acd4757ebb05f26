from __future__ import annotations

import torch

from omnicache.errors import OmniCacheError
from omnicache.policy import Entry, History, Predictor, Tensors, value
from omnicache.runtime.step import Step
from omnicache.weights import Weights


@value
class ScaleShift(Predictor):
    """The last computed value, scaled and shifted by channel: ``s_n * y + b_n`` (Block Caching, arXiv 2312.03209, section 3.4).

    The paper makes ``s`` and ``b`` with a layer on the time, trained by distillation; here they are numbers for each step of one
    schedule. Channels are the last axis of tokens, ``(batch, tokens, channels)``, and the second of pictures.

    Attributes:
        fits: for each tensor of a value ``(2, steps, channels)``, scales and shifts.
    """

    fits: tuple[Weights, ...]

    exact_degree = None

    def __post_init__(self) -> None:
        if not self.fits or any(len(w.shape) != 3 or w.shape[0] != 2 for w in self.fits):
            raise OmniCacheError("ScaleShift: option fits: scales and shifts of each step and channel are needed.")

    def for_steps(self, total: int) -> ScaleShift:
        raise OmniCacheError(f"scales and shifts that are fitted to {self.fits[0].shape[1]} steps hold for no others")

    def learn(self, history: History, step: Step, x: Tensors, y: Tensors) -> History:
        return (Entry(step, y),)

    def estimate(self, history: History, step: Step, x: Tensors) -> Tensors:
        held = history[0].tensors
        if len(held) != len(self.fits):
            return held
        return tuple(_fitted(t, w, step.index) for t, w in zip(held, self.fits, strict=True))


def _fitted(held: torch.Tensor, fit: Weights, step: int) -> torch.Tensor:
    axis = 1 if held.ndim == 4 else held.ndim - 1
    if step >= fit.shape[1] or held.shape[axis] != fit.shape[2]:
        return held
    shape = [1] * held.ndim
    shape[axis] = -1
    scale, shift = fit.on(held.device, torch.float32)[:, step]
    return (held * scale.view(shape) + shift.view(shape)).to(held.dtype)
