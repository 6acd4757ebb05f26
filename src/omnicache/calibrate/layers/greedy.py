"""The paper's solver: cells in the order of quality lost for each second saved, until enough is saved."""

from __future__ import annotations

from collections.abc import Sequence

from omnicache.calibrate.layers.budget import Budget, Cell


def greedy(loss: Sequence[Sequence[float]], budget: Budget) -> tuple[Cell, ...]:
    """The cells to reuse, in the order in which they were taken (OmniCache-MD, Algorithm 1, as ``w = loss / latency``).

    Takes cells by rising weight, of equal ones the larger share first, until the shares sum to the target. So what is saved
    exceeds it by less than the largest share, and a larger speedup takes the same cells and more.

    Args:
        loss: ``loss[l][t]``, what reusing layer ``l`` at step ``t`` alone costs in quality.
        budget: what is to be saved.
    """
    share = budget.share
    order = sorted(budget.cells, key=lambda c: (loss[c[0]][c[1]] / share[c[0]][c[1]], -share[c[0]][c[1]], c))
    taken: list[Cell] = []
    saved = 0.0
    for cell in order:
        if saved >= budget.target - 1e-12:
            break
        taken.append(cell)
        saved += share[cell[0]][cell[1]]
    return tuple(taken)
