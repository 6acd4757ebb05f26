from __future__ import annotations

import functools
from typing import Annotated, Any

from omnicache.policy import Decision, Moment, Trigger, value
from omnicache.schema import Range


@value
class PowerLaw(Trigger):
    """One step in ``interval`` on average, closest to each other at step ``center`` (DeepCache, arXiv 2312.00858, non-uniform).

    As released: of the numbers ``u ** power``, with ``u`` evenly spaced so that they run from ``-center`` to ``total - center``,
    the whole parts are the distances of computed steps from ``center``; the first step is computed besides. Where steps
    coincide, ``power`` is lowered in steps of 0.02 until none do. An unknown ``total`` computes everything.
    """

    interval: Annotated[int, Range(1)] = 5
    power: Annotated[float, Range(1.02, 10)] = 1.4
    center: Annotated[int, Range(0)] = 15

    def decide(self, state: Any, moment: Moment) -> tuple[Decision, Any]:
        steps = _steps(moment.step.total, self.interval, self.power, self.center)
        return (Decision.COMPUTE if steps is None or moment.step.index in steps else Decision.REUSE), state

    def misfit(self, total: int | None) -> str | None:
        if total is None or _steps(total, self.interval, self.power, self.center) is not None:
            return None
        return (
            f"no power law puts {-(-total // self.interval)} computed steps around step {self.center} of {total}; "
            "take a larger interval, another center, or an even schedule"
        )


@functools.lru_cache(maxsize=64)
def _steps(total: int | None, interval: int, power: float, center: int) -> tuple[int, ...] | None:
    """The computed steps; None where the length is unknown or no power gives so many."""
    if total is None:
        return None
    count = -(-total // interval)
    if count >= total:
        return tuple(range(total))
    lowered = 0
    while (p := power - 0.02 * lowered) > 1:
        # A root of a negative number is complex; the released code takes the real part of the powers, and so do we.
        low, high = complex(-center) ** (1 / p), complex(total - center) ** (1 / p)
        whole = {int(round(((low + (high - low) * j / count) ** p).real, 9)) for j in range(count + 1)}  # 9.999...9 is 10
        steps = (0, *(w + center for w in sorted(whole)[1:-1]))
        if len(steps) == count and len(set(steps)) == count:
            return steps
        lowered += 1
    return None
