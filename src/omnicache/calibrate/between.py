from __future__ import annotations

import math
from collections.abc import Mapping


def between(known: Mapping[int, float], at: int) -> float:
    """What was measured at some places, at another one: interpolated on a log scale, and beyond the ends the nearest."""
    below = max((k for k in known if k <= at), default=min(known))
    above = min((k for k in known if k >= at), default=max(known))
    share = (at - below) / (above - below) if above > below else 0.0
    return math.exp((1 - share) * math.log(known[below]) + share * math.log(known[above]))
