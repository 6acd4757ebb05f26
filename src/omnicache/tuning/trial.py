from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from omnicache.plan import Plan


def mean_and_error(each: Sequence[float]) -> tuple[float, float]:
    """Mean of dB and its standard error, 0 where there is but one."""
    return statistics.fmean(each), statistics.stdev(each) / len(each) ** 0.5 if len(each) > 1 else 0.0


@dataclass(frozen=True)
class Trial:
    """A plan that was drawn, and timed.

    Attributes:
        label: what it is, in words.
        psnr: mean over the inputs that are chosen by, in dB.
        error: the standard error of that mean.
        speedup: of the denoiser, a median of interleaved pairs.
        cache_bytes: the most that a run held.
    """

    label: str
    plan: Plan
    psnr: float
    speedup: float
    cache_bytes: int = 0
    error: float = 0.0

    @property
    def sure(self) -> float:
        """The mean less its standard error: of a few inputs, what holds for others, too."""
        return self.psnr - self.error

    @property
    def figures(self) -> dict[str, Any]:
        told = {"psnr": self.psnr, "error": self.error, "speedup": self.speedup, "cache_bytes": self.cache_bytes}
        return {"label": self.label, **told}

    def __str__(self) -> str:
        return f"{self.label}: {self.speedup:.2f} times as fast at {self.psnr:.1f} dB"
