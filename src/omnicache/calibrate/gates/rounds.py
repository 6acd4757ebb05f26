from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from omnicache.calibrate.progress import progress as bar

TRAVEL = 12.0
"""How far a logit can go in a whole fit, where the learning rate is not given: across its range and some way back."""


class Rounds:
    """The rounds of a fit: as many as are asked for, or as fit into the minutes.

    Args:
        iterations, minutes: whichever is reached first ends the fit.
        progress: show a bar.

    Attributes:
        count: how many there will be; known after ``first``.
    """

    def __init__(self, iterations: int, minutes: float, progress: bool = True):
        self.count = self._most = iterations
        self._minutes, self._progress = minutes, progress
        self._began = time.monotonic()

    def first(self, look: Callable[[], None]) -> None:
        """A round in which nothing is learned. It tells how long one takes."""
        began = time.monotonic()
        look()
        now = time.monotonic()
        left = 60 * self._minutes - (now - self._began)
        self.count = max(min(self.count, int(left / max(now - began, 1e-9))), 1)

    def spare(self, wanted: int, cost: float) -> int:
        """How many of ``wanted`` measurements, each as long as ``cost`` rounds, can be made in a third of the time; it is kept for
        them where time is short."""
        number = min(wanted, int(self.count / (3 * cost)))
        if self.count < self._most:
            self.count -= round(number * cost)
        return number

    @property
    def rate(self) -> float:
        """A learning rate with which a logit can cross its range once in a short fit, and the papers' 0.01 in a long one."""
        return min(max(TRAVEL / self.count, 0.01), 1.0)

    def __iter__(self) -> Iterator[int]:
        with bar("gates         ", self.count, self._progress) as done:
            for i in range(self.count):
                yield i
                done()
                if time.monotonic() - self._began > 60 * self._minutes:
                    return  # they are slower than the first was


__all__ = ["Rounds"]
