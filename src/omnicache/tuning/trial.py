from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omnicache.plan import Plan


@dataclass(frozen=True)
class Trial:
    """A plan that was drawn, and timed.

    Attributes:
        label: what it is, in words.
        psnr: mean over the inputs that are chosen by, in dB.
        speedup: of the denoiser, a median of interleaved pairs.
        cache_bytes: the most that a run held.
    """

    label: str
    plan: Plan
    psnr: float
    speedup: float
    cache_bytes: int = 0

    @property
    def figures(self) -> dict[str, Any]:
        return {"label": self.label, "psnr": self.psnr, "speedup": self.speedup, "cache_bytes": self.cache_bytes}

    def __str__(self) -> str:
        return f"{self.label}: {self.speedup:.2f} times as fast at {self.psnr:.1f} dB"
