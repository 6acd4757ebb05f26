"""Reading a curve off between measured points."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise


def ways(places: Sequence[float], at: float) -> list[dict[int, float]]:
    """How points at these ``places`` reach ``at`` or more: each way gives the weights of the points, by their index.

    A point at ``at`` or beyond is a way by itself; so is the straight line between two neighbours on either side of it. Beyond the
    last point there is none.
    """
    order = sorted(range(len(places)), key=lambda i: places[i])
    found = [{i: 1.0} for i in order if places[i] >= at]
    for i, j in pairwise(order):
        if places[i] < at < places[j]:
            share = (at - places[i]) / (places[j] - places[i])
            found.append({i: 1 - share, j: share})
    return found
