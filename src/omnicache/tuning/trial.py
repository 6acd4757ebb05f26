from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from omnicache.plan import Plan

STUDENT = {2: 1.84, 3: 1.32, 4: 1.20, 5: 1.14}
"""By how much more a mean of so few may be off than its standard error says: quantiles of Student's t where the normal one is 1."""


def mean_and_error(each: Sequence[float]) -> tuple[float, float]:
    """Mean of dB and its standard error, a larger one of very few; 0 where there is but one."""
    if len(each) < 2:
        return statistics.fmean(each), 0.0
    return statistics.fmean(each), STUDENT.get(len(each), 1.1) * statistics.stdev(each) / len(each) ** 0.5


@dataclass(frozen=True)
class Trial:
    """A plan that was drawn, and timed.

    Attributes:
        label: what it is, in words.
        psnr: mean over the inputs that are chosen by, in dB.
        error: the standard error of that mean; 0 of one input, which tells nothing of it.
        speedup: of the denoiser, a median of interleaved pairs, of one of those inputs.
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
