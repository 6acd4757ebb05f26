"""What simply taking fewer steps gives: the reference every method has to beat."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise

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
    known = sorted((x, y) for x, y in points if x is not None and y is not None)
    reached = [y for x, y in known if x >= at]
    for (x0, y0), (x1, y1) in pairwise(known):
        if x0 < at < x1 and math.isfinite(y0) and math.isfinite(y1):
            reached.append(y0 + (y1 - y0) * (at - x0) / (x1 - x0))
    return max(reached, default=None)
