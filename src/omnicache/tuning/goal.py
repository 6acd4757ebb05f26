from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from omnicache.errors import OmniCacheError
from omnicache.guards import Guards
from omnicache.measure.likeness import ALIKE
from omnicache.tuning.trial import Trial

SLACK = 0.02
"""Share of a speed that may be missing, of what was asked for or of the fastest: clocks are not exact, and what is chosen is one of
a few steps more or less."""
LATE = 0.05
"""Share of a speed that may be missing on other inputs: one is timed, with a clock that is not exact either."""


@dataclass(frozen=True)
class Goal:
    """What a plan is to reach.

    Attributes:
        speedup: of the denoiser, against the uncached pipeline: the best quality that is so fast.
        psnr: mean over pictures, in dB, against the uncached ones of the same seeds: the fastest that is so like. With both, the
            fastest that is both. It is reached where the mean less its standard error is, so that other pictures reach it, too.
        memory: the most that may be kept, ``"200 MB"``. Alone, it means the fastest at 30 dB.

    Raises:
        OmniCacheError: nothing is asked for, or something that nothing can reach.
    """

    speedup: float | None = None
    psnr: float | None = None
    memory: str | int | None = None

    def __post_init__(self) -> None:
        for name, given in (("speedup", self.speedup), ("psnr", self.psnr)):
            if given is not None and (isinstance(given, bool) or not isinstance(given, (int, float))):
                raise OmniCacheError(f"{name} is a number, as in {name}={2 if name == 'speedup' else 32}, not {given!r}.")
        if self.speedup is None and self.psnr is None and self.memory is None:
            raise OmniCacheError("Say what you want: tune(..., speedup=2), psnr=32 or memory='200 MB'.")
        if self.speedup is not None and not self.speedup > 1:
            raise OmniCacheError(f"A speedup is above 1, not {self.speedup:g}: uncached is 1.")
        if self.psnr is not None and not 5 <= self.psnr < 100:
            raise OmniCacheError(
                f"psnr is in dB against the uncached pictures, from 5 up to 100, not {self.psnr:g}; 30 is a good one."
            )
        Guards(self.memory)

    @property
    def like(self) -> float | None:
        """The PSNR that is wanted."""
        return self.psnr if self.psnr is not None or self.speedup is not None else ALIKE

    @property
    def guards(self) -> Guards | None:
        """The limit that plans get."""
        return None if self.memory is None else Guards(self.memory)

    def reached(self, trial: Trial) -> bool:
        """Whether a trial that was timed is good enough."""
        return trial.speedup > 1 and self.fast(trial) and self.alike(trial)

    def fast(self, trial: Trial) -> bool:
        """Whether it is as fast as is wanted."""
        return self.speedup is None or trial.speedup >= self.speedup * (1 - SLACK)

    def alike(self, trial: Trial) -> bool:
        """Whether it is as like as is wanted."""
        return self.like is None or trial.sure >= self.like

    def missed(self, psnr: float, speedup: float) -> tuple[list[str], list[str]]:
        """Of figures on other inputs those that fall short, in words, and what to ask for, so that they may not."""
        said, asked = [], []
        if self.like is not None and psnr < self.like:
            said, asked = [f"reaches {psnr:.1f} dB"], [f"psnr={min(2 * self.like - psnr, 99.9):.1f}"]
        if self.speedup is not None and speedup < self.speedup * (1 - LATE):
            said, asked = [*said, f"is {speedup:.2f} times as fast"], [*asked, f"speedup={2 * self.speedup - speedup:.2f}"]
        return said, asked

    def best(self, trials: Sequence[Trial]) -> Trial:
        """Of those that are good enough the fastest, and the likest of those that are as fast to within :data:`SLACK`; where only a
        speed was asked for, the likest of all.

        Raises:
            OmniCacheError: none is; the message has the nearest.
        """
        good = [t for t in trials if self.reached(t)]
        if good and self.like is not None:
            fastest = max(t.speedup for t in good)
            return max((t for t in good if t.speedup >= fastest * (1 - SLACK)), key=lambda t: (t.psnr, t.speedup))
        if good:
            return max(good, key=lambda t: (t.psnr, t.speedup))
        raise OmniCacheError(f"{self} was not reached. {self._nearest(trials)}")

    def _nearest(self, trials: Sequence[Trial]) -> str:
        faster = [t for t in trials if t.speedup > 1]
        if not faster:
            return "Nothing that was tried is faster than the uncached pipeline."
        alike, fast = list(filter(self.alike, faster)), list(filter(self.fast, faster))
        near = max(alike, key=lambda t: t.speedup) if alike else max(fast or faster, key=lambda t: t.sure)
        asked = [] if self.fast(near) else [f"speedup={int(near.speedup * 100) / 100:g}"]
        asked += [] if self.alike(near) else [f"psnr={int(near.sure * 10) / 10:g}"]
        return f"The {'nearest' if self.like is not None else 'fastest'} is {near}. Ask for {' and '.join(asked)} or less."

    def __str__(self) -> str:
        parts = [f"speedup={self.speedup:g}"] if self.speedup is not None else []
        parts += [f"psnr={self.psnr:g}"] if self.psnr is not None else []
        parts += [f"memory={self.memory!r}"] if self.memory is not None else []
        return ", ".join(parts)
