"""The solver that knows how cells act together: across layers, across steps, and as a kept value gets older."""

from __future__ import annotations

import torch

from omnicache.calibrate.layers.budget import Budget, Cell

SWEEPS = 8
"""Rounds of exchanges at most."""


def interacting(gram: torch.Tensor, budget: Budget) -> tuple[Cell, ...]:
    """The cells whose errors together come to least, among those that save enough: first greedily, then by exchanges.

    To first order the error of a run is the sum of the errors that its reuses leave, as vectors: some add up, some cancel. A
    value that is ``a`` steps old is off by the sum of the last ``a`` changes, so reuses in a row are worth more than one by one:
    the run of reuses ``t ... t + k - 1`` counts the error of its first step ``k`` times, of its second ``k - 1`` times, and so on.
    With these counts ``n`` the squared error is ``n' G n``, and ``G``, the inner products of the errors of single reuses, is known
    from the same runs as their lengths.

    Cells are taken by rising cost for each unit saved, then each in turn is given up for others if that costs less. A local
    optimum: no exchange of one cell for others, cheapest first, is better.

    Args:
        gram: ``(layers * steps, layers * steps)``, inner products of the errors of single reuses one step old, layer by layer.
        budget: what is to be saved.
    """
    search = _Search(gram, budget)
    search.fill()
    for _ in range(SWEEPS):
        if not search.exchange():
            break
    return search.cells


class _Search:
    """A set of cells and what it costs, kept up to date as cells come and go."""

    def __init__(self, gram: torch.Tensor, budget: Budget) -> None:
        layers, steps = budget.layers, budget.steps
        self.gram, self.layers, self.steps, self.target = gram.double(), layers, steps, budget.target - 1e-12
        self.share = torch.tensor(budget.share, dtype=torch.float64)
        self.free = torch.zeros(layers, steps, dtype=torch.bool)
        for n, t in budget.cells:
            self.free[n, t] = True
        self.reused = torch.zeros(layers, steps, dtype=torch.bool)
        self.pull = torch.zeros(layers, steps, dtype=torch.float64)  # G n
        self.cost, self.saved = 0.0, 0.0
        own = self.gram.reshape(layers, steps, layers, steps).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
        # inside[l, i, j]: the sum of G over the square of steps below i and below j of layer l
        self.inside = torch.zeros(layers, steps + 1, steps + 1, dtype=torch.float64)
        self.inside[:, 1:, 1:] = own.cumsum(1).cumsum(2)

    @property
    def cells(self) -> tuple[Cell, ...]:
        return tuple((int(n), int(t)) for n, t in self.reused.nonzero())

    def _runs(self) -> tuple[torch.Tensor, torch.Tensor]:
        """For each cell: how many before it, and after it, are reused in a row."""
        before = torch.zeros(self.layers, self.steps, dtype=torch.long)
        after = torch.zeros_like(before)
        for t in range(1, self.steps):
            before[:, t] = (before[:, t - 1] + 1) * self.reused[:, t - 1]
            after[:, -1 - t] = (after[:, -t] + 1) * self.reused[:, -t]
        return before, after

    def adding(self) -> torch.Tensor:
        """What taking each cell would add to the squared error; infinite where it cannot be taken.

        Steps ``t - before ... t`` of its layer are then counted ``after + 1`` times more.
        """
        before, after = self._runs()
        place = torch.arange(self.steps).expand(self.layers, -1)
        low, high, times = place - before, place + 1, (after + 1).double()
        sums = torch.cat([torch.zeros(self.layers, 1, dtype=torch.float64), self.pull.cumsum(1)], 1)
        row = torch.arange(self.layers)[:, None]
        square = self.inside[row, high, high] - 2 * self.inside[row, low, high] + self.inside[row, low, low]
        added = 2 * times * (sums.gather(1, high) - sums.gather(1, low)) + times**2 * square
        return added.masked_fill(~self.free | self.reused, torch.inf)

    def turn(self, n: int, t: int) -> None:
        """Take the cell, or give it up."""
        taking = not bool(self.reused[n, t])
        self.reused[n, t] = False
        low, after = t, 0
        while low > 0 and self.reused[n, low - 1]:
            low -= 1
        while t + after + 1 < self.steps and self.reused[n, t + after + 1]:
            after += 1
        self.reused[n, t] = taking
        sign = 1 if taking else -1
        change = sign * (after + 1) * self.gram[:, n * self.steps + low : n * self.steps + t + 1].sum(1).reshape(self.layers, -1)
        # The squared error of n + d is that of n, and d' (2 G n + G d).
        self.cost += sign * (after + 1) * float((2 * self.pull + change)[n, low : t + 1].sum())
        self.pull += change
        self.saved += sign * float(self.share[n, t])

    def fill(self) -> list[Cell]:
        """Take cells until enough is saved or none is left, the least added error for each unit saved first; the last one by
        its error alone, among those that suffice. Returns them."""
        taken: list[Cell] = []
        while self.saved < self.target:
            added = self.adding()
            if not bool(added.isfinite().any()):
                break
            best = int((added / self.share.clamp_min(1e-30)).argmin())
            enough = added.masked_fill(self.saved + self.share < self.target, torch.inf)
            last = int(enough.argmin())
            if enough.flatten()[last] <= added.flatten()[best]:
                best = last
            cell = divmod(best, self.steps)
            self.turn(*cell)
            taken.append(cell)
        return taken

    def exchange(self) -> bool:
        """Give each cell up for others where that is better; whether any was."""
        better = False
        for cell in self.cells:
            cost, pull, saved = self.cost, self.pull.clone(), self.saved
            self.turn(*cell)
            self.free[cell] = False
            taken = self.fill()
            self.free[cell] = True
            if self.saved >= self.target and self.cost < cost - 1e-9 * abs(cost):
                better = True
                continue
            for back in taken:
                self.reused[back] = False
            self.reused[cell] = True
            self.cost, self.pull, self.saved = cost, pull, saved
        return better
