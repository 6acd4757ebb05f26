from __future__ import annotations

import math
from typing import Any

import torch

from omnicache.policy import Corrector, value
from omnicache.runtime.step import Step


@value
class NoiseCorrection(Corrector):
    """Subtracts an estimate of the noise that reuse adds (OmniCache-Trajectory, arXiv 2508.16212, eq. 6 to 9).

    At the last computed step before a reuse, the output is first rehearsed with the old cache; the difference ``q`` to the
    true output is carried to the following reuse steps by one number each.

    Attributes:
        gamma: per step, the number that carries ``q`` there; None at steps that are computed.
        cutoff: of the Gaussian band filter, 1 being the Nyquist frequency of an axis; None for no filter. Low-pass while
            structure forms, high-pass while detail does.
        switch: the step at which low-pass becomes high-pass, as an index.
        channels: how many leading channels of the output are corrected (the mean of a model that predicts a variance too).
    """

    gamma: tuple[float | None, ...]
    cutoff: float | None = 0.25
    switch: int = 0
    channels: int | None = None

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
        noise = state if self.cutoff is None else band(state, self.cutoff, high=step.index >= self.switch)
        if self.channels is None:
            return estimate - gamma * noise
        out = estimate.clone()
        out[:, : self.channels] -= gamma * noise[:, : self.channels]
        return out


def band(x: torch.Tensor, cutoff: float, high: bool) -> torch.Tensor:
    """Low or high frequencies of the last two axes of ``x``, by a Gaussian of width ``cutoff`` (1 = Nyquist of an axis).

    The two sum to ``x``. Tokens ``(batch, tokens, channels)`` are filtered as the square picture that they make, or not at all
    if they make none.
    """
    if x.ndim == 3:
        side = math.isqrt(x.shape[1])
        if side * side != x.shape[1]:
            return x
        return band(x.transpose(1, 2).unflatten(2, (side, side)), cutoff, high).flatten(2).transpose(1, 2)
    h, w = x.shape[-2:]
    fy = 2 * torch.fft.fftfreq(h, device=x.device)[:, None]
    fx = 2 * torch.fft.rfftfreq(w, device=x.device)[None, :]
    keep = torch.exp(-(fy**2 + fx**2) / (2 * cutoff**2))
    low = torch.fft.irfft2(torch.fft.rfft2(x.float()) * keep, s=(h, w)).to(x.dtype)
    return x - low if high else low
