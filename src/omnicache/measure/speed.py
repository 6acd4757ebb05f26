"""How much faster a plan is, in interleaved pairs."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import omnicache
from omnicache.integrations.pipelines import denoisers
from omnicache.measure.stopwatch import Stopwatch
from omnicache.plan import Plan


def speed(pipe: Any, call: Callable[[], Any], plan: Plan, pairs: int = 9) -> dict[str, Any]:
    """Time ``call`` without and with the plan, by turns, and which goes first by turns, too.

    The denoiser alone is timed, on an accelerator with its work waited for.

    Returns:
        ``speedup``: median of the pairs' ratios, with the ends of its 95 % interval (``{"median", "low", "high"}``); seconds of the
        medians, ``uncached`` and ``cached``; ``pairs``; ``load``, the load average at the end.
    """

    def plain() -> float:
        with Stopwatch(model) as watch:
            call()
        return watch.seconds

    def cached() -> float:
        with omnicache.cache(pipe, plan), Stopwatch(model) as watch:
            call()
        return watch.seconds

    model = denoisers(pipe)[0]
    cached()  # warm-up
    took = []
    for i in range(pairs):
        first = plain() if i % 2 else cached()
        second = cached() if i % 2 else plain()
        took.append((first, second) if i % 2 else (second, first))
    without, with_it = zip(*took, strict=True)
    return {
        "speedup": median95([a / b for a, b in took]),
        "uncached": statistics.median(without),
        "cached": statistics.median(with_it),
        "pairs": pairs,
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def median95(values: Sequence[float]) -> dict[str, float]:
    """Median, and two of the values between which the true one lies with at least 95 % (of fewer than six: all of them)."""
    ordered, n = sorted(values), len(values)
    k, below = 0, 0.0
    while k < n // 2 and (below := below + math.comb(n, k) / 2**n) <= 0.025:
        k += 1
    rank = max(k - 1, 0)
    return {"median": statistics.median(ordered), "low": ordered[rank], "high": ordered[n - 1 - rank]}


__all__ = ["median95", "speed"]
