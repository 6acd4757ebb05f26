from __future__ import annotations

from collections.abc import Callable

from omnicache.calibrate.between import between
from omnicache.calibrate.steps.fit import Fitted

PLACES = 8


def growth(steps: int, fitted: Callable[[str], Fitted]) -> list[float]:
    """What an error of the latents before each step is by the end of the run, as a ratio, ``(steps + 1,)``.

    Measured by leaving out a tenth of the steps at eight places, closer together at the start where it changes fastest, and
    computing all others; in between it is interpolated on a log scale.
    """
    gap = max(1, steps // 10)
    last = max(steps - gap - 1, 1)
    found = {steps: 1.0}
    for start in sorted({min(1 + round((last - 1) * (k / (PLACES - 1)) ** 2), last) for k in range(PLACES)}):
        off = fitted("".join("." if start <= i < start + gap else "#" for i in range(steps))).off
        there, end = float(off[start + gap].mean()), float(off[-1].mean())
        if there > 0 and end > 0:
            found[start + gap] = (end / there) ** 0.5
    return [between(found, k) for k in range(steps + 1)]
