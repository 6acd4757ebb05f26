from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated

from omnicache.policy import Entry, History, Tensors, value
from omnicache.predictors.linear import Linear
from omnicache.runtime.step import Step
from omnicache.schema import Choice, Range


@value
class Taylor(Linear):
    """Extrapolates the last ``order + 1`` computed values (TaylorSeer, arXiv 2503.06923, eq. 3).

    ``basis="taylor"`` is the released ladder: backward differences divided by the newest gap, taken for derivatives. It is
    exact up to degree 1 only. ``basis="newton"`` uses divided differences on the true positions: exact up to degree
    ``order`` at any spacing. Values from steps before ``since`` are not used, and of two at one position (Heun evaluates twice at
    one sigma) only the newer one.
    """

    order: Annotated[int, Range(0)] = 1
    basis: Annotated[str, Choice(("taylor", "newton"))] = "taylor"
    axis: Annotated[str, Choice(("step", "sigma"))] = "step"
    since: int = 0

    @property
    def keep(self) -> int:  # type: ignore[override]
        return self.order + 1

    @property
    def exact_degree(self) -> int:  # type: ignore[override]
        return self.order if self.basis == "newton" else min(self.order, 1)

    def lower(self) -> Taylor | None:
        return replace(self, order=self.order - 1) if self.order else None

    def learn(self, history: History, step: Step, x: Tensors, y: Tensors) -> History:
        here = step.position(self.axis)
        kept = tuple(e for e in history if e.step.index >= self.since and e.step.position(self.axis) != here)
        return (Entry(step, y), *kept)[: self.keep]

    def weights(self, past: tuple[float, ...], now: float) -> tuple[float, ...]:
        if self.basis == "newton":
            return newton(past, now)
        return climbed(past, lambda i: (now - past[0]) ** i / math.factorial(i))


def ladder(past: tuple[float, ...]) -> list[tuple[float, ...]]:
    """Weights of the differences ``D_0, D_1, ...`` of the newest entry, each the difference of two of the order below, divided by
    the newest gap between them."""
    n = len(past)
    rows = [[1.0 if a == b else 0.0 for b in range(n)] for a in range(n)]  # of D_i as it was at each entry
    made = [tuple(rows[0])]
    for _ in range(1, n):
        rows = [
            [(p - q) / (past[a] - past[a + 1]) for p, q in zip(rows[a], rows[a + 1], strict=True)] for a in range(len(rows) - 1)
        ]
        made.append(tuple(rows[0]))
    return made


def climbed(past: tuple[float, ...], factor: Callable[[int], float]) -> tuple[float, ...]:
    """Weights of ``sum_i factor(i) D_i``, where ``factor(0)`` is 1."""
    steps = ladder(past)
    total = list(steps[0])
    for i, step in enumerate(steps[1:], start=1):
        total = [t + factor(i) * w for t, w in zip(total, step, strict=True)]
    return tuple(total)


def newton(past: tuple[float, ...], now: float) -> tuple[float, ...]:
    """Lagrange's weights: the polynomial through all past values, at ``now``."""
    return tuple(math.prod((now - q) / (p - q) for q in past if q != p) for p in past)
