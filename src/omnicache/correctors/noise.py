from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated, Any

import torch

from omnicache.policy import Corrector, value
from omnicache.runtime.step import Step
from omnicache.schema import Choice, Range


@value
class NoiseCorrection(Corrector):
    """Subtracts an estimate of the noise that reuse adds (OmniCache-Trajectory, arXiv 2508.16212, eq. 6 to 9).

    At the last computed step before a reuse, the output is first rehearsed with the old cache; the difference ``q`` to the
    true output is carried to the following reuse steps by one number each.

    Attributes:
        gamma: per step, the number that carries ``q`` there; None at steps that are computed.
        cutoff: of the band filter, 1 being the Nyquist frequency of an axis; None for no filter. Low-pass while structure
            forms, high-pass while detail does.
        mask, frames: the filter's shape and whether it takes in a video's frames, see ``band``.
        switch: the step at which low-pass becomes high-pass, as an index.
        channels: how many leading channels of the output are corrected (the mean of a model that predicts a variance too).
    """

    gamma: tuple[float | None, ...]
    cutoff: Annotated[float | None, Range(0.01, 10)] = 0.25
    switch: Annotated[int, Range(0)] = 0
    channels: Annotated[int | None, Range(1)] = None
    mask: Annotated[str, Choice(("gaussian", "ideal"))] = "gaussian"
    frames: bool = False

    def for_steps(self, total: int) -> NoiseCorrection:
        n = len(self.gamma)
        gamma = tuple(self.gamma[i * n // total] for i in range(total))
        return replace(self, gamma=gamma, switch=self.switch * total // n if n else self.switch)

    def rehearse(self, step: Step) -> tuple[int, ...]:
        following = self.gamma[step.index + 1 : step.index + 4]
        for g in following:
            if g is None:
                break
            if g > 0:
                return (0,)
        return ()

    def learn(self, state: Any, step: Step, truth: torch.Tensor, rehearsed: tuple[torch.Tensor, ...]) -> Any:
        return rehearsed[0] - truth if rehearsed else None

    def apply(self, state: Any, step: Step, estimate: torch.Tensor) -> torch.Tensor:
        gamma = self.gamma[step.index] if step.index < len(self.gamma) else None
        if state is None or gamma is None or gamma <= 0 or state.shape != estimate.shape:
            return estimate
        noise = state
        if self.cutoff is not None:
            noise = band(state, self.cutoff, step.index >= self.switch, self.mask, self.frames)
        if self.channels is None:
            return estimate - gamma * noise
        out = estimate.clone()
        out[:, : self.channels] -= gamma * noise[:, : self.channels]
        return out


def band(x: torch.Tensor, cutoff: float, high: bool, mask: str = "gaussian", frames: bool = False) -> torch.Tensor:
    """Low or high frequencies of a picture's two axes, or of a video's three with ``frames``; the two sum to ``x``.

    Args:
        x: ``(..., h, w)``, ``(batch, channels, frames, h, w)`` with ``frames``, or packed tokens ``(batch, tokens, channels)``
            that make a square picture (others come back whole: what is not a picture has no bands).
        cutoff: 1 is the Nyquist frequency of an axis.
        high: the high frequencies instead of the low ones.
        mask: "gaussian" with ``cutoff`` as its width, or "ideal", which cuts there.
    """
    if x.ndim == 3:
        side = math.isqrt(x.shape[1])
        if side * side != x.shape[1]:
            return x
        picture = x.transpose(1, 2).unflatten(2, (side, side))
        return band(picture, cutoff, high, mask).flatten(2).transpose(1, 2)
    axes = (-3, -2, -1) if frames and x.ndim == 5 else (-2, -1)
    sizes = [x.shape[a] for a in axes]
    squares = torch.zeros((), device=x.device)
    for i, n in enumerate(sizes):
        line = torch.fft.rfftfreq(n, device=x.device) if i == len(sizes) - 1 else torch.fft.fftfreq(n, device=x.device)
        squares = squares + ((2 * line) ** 2).view([-1 if j == i else 1 for j in range(len(sizes))])
    keep = (squares <= cutoff**2).float() if mask == "ideal" else torch.exp(-squares / (2 * cutoff**2))
    low = torch.fft.irfftn(torch.fft.rfftn(x.float(), dim=axes) * keep, s=sizes, dim=axes).to(x.dtype)
    return x - low if high else low
