"""Which steps to reuse: the cheapest set under the rule of no three in a row."""

from __future__ import annotations

import math
from collections.abc import Sequence

from omnicache.errors import OmniCacheError


def most_reuses(total: int, warmup: int = 2, tail: int = 1, longest: int = 2) -> int:
    """The most steps that can be reused: ``n - floor(n / (longest + 1))`` of the ``n`` steps between head and tail."""
    n = max(total - warmup - tail, 0)
    return n - n // (longest + 1)


def reuses_of(reuse: float, total: int) -> int:
    """So many of ``total`` steps: a share up to 1, or above it a number of steps.

    Raises:
        OmniCacheError: above 1, and no whole number.
    """
    if reuse > 1 and reuse != round(reuse):
        raise OmniCacheError(
            f"reuse={reuse:g}: up to 1 it is the share of the steps to reuse, above it their number, and that is a whole one."
        )
    return round(reuse * total) if reuse <= 1 else round(reuse)


def check(total: int, reuses: int, warmup: int = 2, tail: int = 1, longest: int = 2) -> None:
    """Raise OmniCacheError, with the maximum, if the rule does not allow as many reuses."""
    most = most_reuses(total, warmup, tail, longest)
    if reuses > most:
        share = math.floor(100 * most / max(total, 1)) / 100
        raise OmniCacheError(
            f"{reuses} of {total} steps cannot be reused: with the first {warmup} and the last {tail} computed and at most "
            f"{longest} reuses in a row, {most} can ({share:.0%}). Ask for reuse={share:.2f} (a share; above 1 a "
            f"number of steps) or less."
        )


def cheapest(
    cost: Sequence[float], reuses: int, warmup: int = 2, tail: int = 1, longest: int = 2, ages: Sequence[Sequence[float]] = ()
) -> str:
    """The schedule of least total cost, by dynamic programming: one character a step, ``#`` computed and ``.`` reused.

    Args:
        cost: of reusing each step; ``cost[i]`` for step ``i``.
        reuses: how many steps to reuse, exactly.
        warmup: leading steps that are computed (2, so that the first reuse can be corrected).
        tail: trailing steps that are computed.
        longest: the longest run of reused steps.
        ages: optional; ``ages[a - 1][i]`` is the cost of step ``i`` when the kept value is ``a`` steps old. Default ``cost[i]``.

    Ties prefer the earlier step. O(total * reuses * longest).

    Raises:
        OmniCacheError: more reuses than the rule allows.
    """
    total = len(cost)
    check(total, reuses, warmup, tail, longest)

    def at(i: int, age: int) -> float:
        return float(ages[age - 1][i]) if ages else float(cost[i])

    # best[run][k]: least cost so far with k reuses, the last `run` steps reused; choices walk back.
    best: list[list[tuple[float, int]]] = [[(math.inf, 0)] * (reuses + 1) for _ in range(longest + 1)]
    best[0][0] = (0.0, 0)
    back: list[list[list[int]]] = []
    for i in range(total):
        after = [[(math.inf, 0)] * (reuses + 1) for _ in range(longest + 1)]
        came = [[-1] * (reuses + 1) for _ in range(longest + 1)]
        for run in range(longest + 1):
            for k in range(reuses + 1):
                value, late = best[run][k]
                if value == math.inf:
                    continue
                if (value, late) < after[0][k]:
                    after[0][k], came[0][k] = (value, late), run
                if warmup <= i < total - tail and run < longest and k < reuses:
                    reused = (value + at(i, run + 1), late + i)  # ties: the smaller sum of indices is the earlier one
                    if reused < after[run + 1][k + 1]:
                        after[run + 1][k + 1], came[run + 1][k + 1] = reused, run
        best = after
        back.append(came)
    run = min(range(longest + 1), key=lambda r: best[r][reuses])
    if best[run][reuses][0] == math.inf:
        raise OmniCacheError(
            f"No schedule with {reuses} of {total} steps reused was found: at too many steps there is no kept value to reuse. "
            "Ask for fewer."
        )
    marks, k = [], reuses
    for i in range(total - 1, -1, -1):
        before = back[i][run][k]
        marks.append("." if run else "#")
        k -= 1 if run else 0
        run = before
    return "".join(reversed(marks))


def greedy(cost: Sequence[float], reuses: int, warmup: int = 2, tail: int = 1, longest: int = 2) -> str:
    """The paper's literal reading: steps in the order of rising cost, skipping one that would make a run too long.

    May reuse fewer than asked, and cost more than ``cheapest``.
    """
    total = len(cost)
    marks = ["#"] * total
    for i in sorted(range(warmup, total - tail), key=lambda i: (cost[i], i)):
        if marks.count(".") == reuses:
            break
        marks[i] = "."
        if "." * (longest + 1) in "".join(marks):
            marks[i] = "#"
    return "".join(marks)


def alternate(total: int, reuses: int, warmup: int = 2, tail: int = 1, longest: int = 2) -> str:
    """Reuses spread as evenly as the rule allows: the plain schedule to compare with."""
    n = total - warmup - tail
    computed = n - reuses
    # Steps are reused where the even ramp of reuses passes a whole number.
    spread = [math.floor((i + 1) * reuses / max(n, 1) + 1e-9) - math.floor(i * reuses / max(n, 1) + 1e-9) for i in range(n)]
    marks = "#" * warmup + "".join("." if s else "#" for s in spread) + "#" * tail
    if "." * (longest + 1) in marks or computed < 0:
        return cheapest([0.0] * total, reuses, warmup, tail, longest)
    return marks


def interval(total: int, reuses: int) -> str:
    """One computed step in every ``n``, with ``n`` the smallest that reuses at least ``reuses`` (no rule of three)."""
    for n in range(1, total + 1):
        marks = "".join("#" if i % n == 0 or i == total - 1 else "." for i in range(total))
        if marks.count(".") >= reuses:
            return marks
    return "#" * total
