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
from omnicache.now import now
from omnicache.plan import Plan


@dataclass(frozen=True)
class Timed:
    """One call of a pipeline.

    Attributes:
        whole: its seconds.
        each: seconds of every evaluation of the denoiser, or of the denoisers, where a pipeline has several.
    """

    whole: float
    each: tuple[float, ...]

    @property
    def denoiser(self) -> float:
        """Seconds in the denoiser."""
        return sum(self.each)


@dataclass(frozen=True)
class Pair:
    """A call without and with a plan; what the latter made, and its run."""

    without: Timed
    within: Timed
    made: Any
    run: Caching

    @property
    def uncached(self) -> float:
        """Seconds in the denoiser without the plan."""
        return self.without.denoiser

    @property
    def cached(self) -> float:
        """Seconds in the denoiser with it."""
        return self.within.denoiser


def pair(pipe: Any, call: Callable[[], Any], plan: Plan, cached_first: bool) -> Pair:
    """Time ``call`` once without and once with the plan, on an accelerator with its work waited for."""
    models = denoisers(pipe)

    def timed() -> tuple[Timed, Any]:
        with Stopwatch(*models) as watch:
            began = now()
            made = call()
            took = now() - began
        return Timed(took, tuple(watch.each)), made

    def cached() -> tuple[Timed, Any, Caching]:
        with omnicache.cache(pipe, plan) as run:
            return *timed(), run

    if cached_first:
        found, (without, _) = cached(), timed()
    else:
        (without, _), found = timed(), cached()
    return Pair(without, *found)


def pairs_of(pipe: Any, call: Callable[[], Any], plan: Plan, pairs: int = 9) -> list[Pair]:
    """Time ``call`` without and with the plan, by turns, and which goes first by turns, too; after one call to warm up."""
    with omnicache.cache(pipe, plan):
        call()
    return [pair(pipe, call, plan, cached_first=i % 2 == 0) for i in range(pairs)]


def speed(pipe: Any, call: Callable[[], Any], plan: Plan, pairs: int = 9) -> dict[str, Any]:
    """How much faster a call is; see :func:`summary`."""
    return summary(pairs_of(pipe, call, plan, pairs))


def summary(took: Sequence[Pair]) -> dict[str, Any]:
    """Figures of pairs.

    Returns:
        ``speedup`` of the denoiser: median of the pairs' ratios, with the ends of its 95 % interval, ``{"median", "low", "high"}``;
        seconds of the medians, ``uncached`` and ``cached``; ``pairs``; ``load``, the load average at the end.
    """
    return {
        "speedup": median95([one.uncached / one.cached for one in took]),
        "uncached": statistics.median(one.uncached for one in took),
        "cached": statistics.median(one.cached for one in took),
        "pairs": len(took),
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


__all__ = ["Pair", "Timed", "median95", "pair", "pairs_of", "speed", "summary"]
