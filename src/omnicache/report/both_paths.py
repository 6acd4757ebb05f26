"""The path of one input without and with a plan, in the three dimensions of the former."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from omnicache.calibrate import geometry

SEEN = 0.05
"""Share of the path's size below which the distance between the two is drawn larger than it is."""


def both_paths(uncached: Sequence[Tensor], cached: Sequence[Tensor]) -> tuple[list[list[list[float]]], int]:
    """Points of both paths, and how many times as large as it is the distance between them is drawn."""
    last, count = len(uncached) - 1, len(cached)
    together = geometry.project(geometry.gram([*uncached[:last], *cached, uncached[last]]))
    plain, other = together[[*range(last), last + count]], together[last : last + count]
    times = 1
    if len(plain) == len(other):
        apart, size = float((other - plain).norm(dim=1).max()), float((plain - plain[-1]).norm(dim=1).max())
        if 0 < apart < SEEN * size:
            times = int(float(f"{2 * SEEN * size / apart:.0e}"))
            other = plain + times * (other - plain)
    return [plain.tolist(), other.tolist()], times
