from __future__ import annotations

from typing import Annotated

import torch

from omnicache.policy import Entry, History, Predictor, Tensors, value
from omnicache.runtime.step import Step
from omnicache.schema import Range

Share = Annotated[float, Range(0, 1)]


@value
class Bands(Predictor):
    """The last computed value with its low and high frequencies scaled, each in its part of the run (FasterCache, CFG-Cache).

    ``LF(v) w1 + HF(v) w2``, where LF is the disc around frequency zero of every plane (the last two axes) whose radius is a share
    of the shorter side. The paper's ``w1 = 1 + alpha1 [early]``, ``w2 = 1 + alpha2 [late]`` (arXiv 2410.19355, CFG-Cache). A value
    without planes (fewer than four axes: packed tokens) is held as it is, and so is one in a run of unknown length.

    Attributes:
        low, high: the factors ``w1`` and ``w2``.
        low_until: low frequencies are scaled before this share of the run,
        high_from: high ones from this one on.
        radius: of the disc, as a share of the shorter side; in whole frequencies, rounded down.
        compound: as released, the kept value itself is scaled at every reused step: factors multiply until it is refreshed.
    """

    low: Annotated[float, Range(0)] = 1.1
    high: Annotated[float, Range(0)] = 1.1
    low_until: Share = 0.88
    high_from: Share = 0.88
    radius: Annotated[float, Range(0, 0.5)] = 0.2
    compound: bool = False

    @property
    def exact_degree(self) -> int | None:  # type: ignore[override]
        return 0 if self.low == self.high == 1 else None  # else it changes what does not change, on purpose

    def learn(self, history: History, step: Step, x: Tensors, y: Tensors) -> History:
        return (Entry(step, y),)

    def factors(self, since: Step, step: Step) -> tuple[float, float]:
        """What low and high frequencies of a value computed at ``since`` are multiplied by at ``step``."""
        if not step.total:
            return 1.0, 1.0
        scaled = range(since.index + 1, step.index + 1) if self.compound else (step.index,)
        early = sum(i / step.total < self.low_until for i in scaled)
        late = sum(i / step.total >= self.high_from for i in scaled)
        return self.low**early, self.high**late

    def estimate(self, history: History, step: Step, x: Tensors) -> Tensors:
        low, high = self.factors(history[0].step, step)
        if low == high == 1:
            return history[0].tensors
        return tuple(self._scaled(t, low, high) if t.ndim >= 4 else t for t in history[0].tensors)

    def _scaled(self, t: torch.Tensor, low: float, high: float) -> torch.Tensor:
        if low == high:
            return low * t
        exact = t if t.dtype in (torch.float32, torch.float64) else t.float()
        gain = high + (low - high) * self.disc(*t.shape[-2:], device=t.device).to(exact.dtype)
        return torch.fft.ifft2(torch.fft.fft2(exact) * gain).real.to(t.dtype)

    def disc(self, height: int, width: int, device: torch.device | None = None) -> torch.Tensor:
        """Which frequencies of a plane are low, in the order of ``torch.fft.fft2``: ``(height, width)`` of truths."""
        rows = torch.fft.fftfreq(height, 1 / height, device=device)
        columns = torch.fft.fftfreq(width, 1 / width, device=device)
        return rows[:, None] ** 2 + columns**2 <= int(min(height, width) * self.radius) ** 2
