"""How much faster a plan is, in interleaved pairs."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import omnicache
from omnicache.api import Caching
from omnicache.integrations.pipelines import denoisers
from omnicache.measure.stopwatch import Stopwatch
from omnicache.plan import Plan


@dataclass(frozen=True)
class Pair:
    """Seconds in the denoiser of one call without and with a plan; what the latter made, and its run."""

    uncached: float
    cached: float
    made: Any
    run: Caching


def pair(pipe: Any, call: Callable[[], Any], plan: Plan, cached_first: bool) -> Pair:
    """Time ``call`` once without and once with the plan.

    The denoiser alone is timed, on an accelerator with its work waited for.
    """
    model = denoisers(pipe)[0]

    def plain() -> float:
        with Stopwatch(model) as watch:
            call()
        return watch.seconds

    def cached() -> tuple[float, Any, Caching]:
        with omnicache.cache(pipe, plan) as run, Stopwatch(model) as watch:
            made = call()
        return watch.seconds, made, run

    if cached_first:
        found, without = cached(), plain()
    else:
        without, found = plain(), cached()
    return Pair(without, *found)


def speed(pipe: Any, call: Callable[[], Any], plan: Plan, pairs: int = 9) -> dict[str, Any]:
    """Time ``call`` without and with the plan, by turns, and which goes first by turns, too.

    Returns:
        ``speedup``: median of the pairs' ratios, with the ends of its 95 % interval (``{"median", "low", "high"}``); seconds of the
        medians, ``uncached`` and ``cached``; ``pairs``; ``load``, the load average at the end.
    """
    with omnicache.cache(pipe, plan):
        call()  # warm-up
    took = [pair(pipe, call, plan, cached_first=i % 2 == 0) for i in range(pairs)]
    return {
        "speedup": median95([one.uncached / one.cached for one in took]),
        "uncached": statistics.median(one.uncached for one in took),
        "cached": statistics.median(one.cached for one in took),
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


__all__ = ["Pair", "median95", "pair", "speed"]
