"""The exact solver for losses that add up: dynamic programming over the time saved."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from omnicache.calibrate.layers.budget import Budget, Cell

UNITS = 100_000
"""Parts into which the run's time is cut."""


def knapsack(loss: Sequence[Sequence[float]], budget: Budget) -> tuple[Cell, ...]:
    """The cells of least total loss that save enough.

    Exact but for the rounding of each share down to a ``UNITS``-th of the run: never less is saved than asked for.
    If rounding leaves too few to reach the target, all candidates are taken. O(cells x UNITS).
    """
    cells = budget.cells
    weight = [int(budget.share[n][t] * UNITS + 1e-9) for n, t in cells]
    need = min(-int(-budget.target * UNITS // 1), sum(weight))
    best = torch.full((need + 1,), torch.inf, dtype=torch.float64)  # least loss by units saved; `need` stands for that or more
    best[0] = 0
    taken: list[torch.Tensor] = []  # by cell: at which sums it is the last one
    source: list[int] = []  # by cell: the sum before it, where it is the one that makes it enough
    for (n, t), w in zip(cells, weight, strict=True):
        reached = torch.full_like(best, torch.inf)
        reached[min(w, need) :] = best[: max(need + 1 - w, 1)]
        enough = max(need - w, 0)
        source.append(enough + int(best[enough:].argmin()))
        reached[need] = best[source[-1]]
        reached += loss[n][t]
        taken.append(reached < best)
        best = torch.minimum(reached, best)
    chosen, at = [], need
    for i in range(len(cells) - 1, -1, -1):
        if taken[i][at]:
            chosen.append(cells[i])
            at = source[i] if at == need else at - weight[i]
    return tuple(reversed(chosen))
