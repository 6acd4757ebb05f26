"""What simply taking fewer steps gives: the reference every method has to beat."""

from __future__ import annotations

import math
from collections.abc import Iterable

from omnicache.measure.ways import ways
from omnicache.report.run import Run


class FewerSteps:
    """The picture quality that fewer steps reach, by speed and by share of compute, from the runs of ``fewer-steps``.

    Between two measured runs it is read off the straight line that joins them; beyond the fastest it is unknown.
    """

    def __init__(self, runs: Iterable[Run]) -> None:
        self.runs = [run for run in runs if run.method == "fewer-steps" and run.psnr is not None]

    def psnr_at_speed(self, speedup: float | None) -> float | None:
        """The best PSNR that fewer steps reach at this speed or faster."""
        return _best([(run.speedup, run.psnr) for run in self.runs], speedup)

    def psnr_at_compute(self, compute: float | None) -> float | None:
        """The best PSNR that fewer steps reach with this share of the compute or less."""
        less = None if compute is None else -compute
        return _best([(None if run.compute is None else -run.compute, run.psnr) for run in self.runs], less)

    def beats(self, run: Run) -> bool:
        """Whether fewer steps are as fast as a method, or faster, and closer to the uncached pictures."""
        there = self.psnr_at_speed(run.speedup)
        return run.is_cache and run.psnr is not None and there is not None and there > run.psnr


def _best(points: list[tuple[float | None, float | None]], at: float | None) -> float | None:
    if at is None:
        return None
    known = [(x, y) for x, y in points if x is not None and y is not None]
    reached = [way for way in ways([x for x, _ in known], at) if len(way) == 1 or all(math.isfinite(known[i][1]) for i in way)]
    return max((sum(weight * known[i][1] for i, weight in way.items()) for way in reached), default=None)
