"""The solver that knows how cells act together: across layers, across steps, and as a kept value gets older."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from omnicache.calibrate.layers.budget import Budget, Cell
from omnicache.calibrate.layers.joint import Joint

SWEEPS = 4
"""Rounds of exchanges at most."""


def interacting(joint: Joint, budget: Budget) -> tuple[Cell, ...]:
    """The cells whose errors together come to least, among those that save enough: first greedily, then by exchanges.

    Cells are taken by rising cost for each unit saved, then each in turn is given up for others if that costs less. The same from
    the best plan of whole steps; the better of the two is taken. It is a local optimum: no exchange of one cell for others,
    cheapest first, is better.

    Args:
        joint: what cells cost together.
        budget: what is to be saved.
    """
    starts = [(), whole_steps(joint, budget)] if budget.layers > 1 else [()]
    return min((_improved(joint, budget, start) for start in starts), key=lambda found: found[0])[1]


def whole_steps(joint: Joint, budget: Budget) -> tuple[Cell, ...]:
    """The best plan that reuses all layers at once, found in the same way; no cell where none saves enough."""
    columns = Budget((tuple(map(sum, zip(*budget.share, strict=True))),), budget.target, budget.interval)
    chosen = {t for _, t in _improved(joint.whole, columns, ())[1]}
    return tuple((n, t) for n, t in budget.cells if t in chosen)


def _improved(joint: Joint, budget: Budget, start: Sequence[Cell]) -> tuple[float, tuple[Cell, ...]]:
    search = _Search(joint, budget)
    for cell in start:
        search.turn(*cell)
    search.fill()
    for _ in range(SWEEPS):
        if not search.exchange():
            break
    return search.cost, search.cells


class _Search:
    """A set of cells and the error that it leaves, kept up to date as cells come and go."""

    def __init__(self, joint: Joint, budget: Budget) -> None:
        self.alone, self.pair, self.target = joint.alone.float(), joint.pair.float(), budget.target - 1e-12
        self.layers, self.steps, self.ages = self.alone.shape[:3]
        self.share = torch.tensor(budget.share, dtype=torch.float64)
        self.free = torch.zeros(self.layers, self.steps, dtype=torch.bool)
        for n, t in budget.cells:
            self.free[n, t] = True
        self.reused = torch.zeros_like(self.free)
        self.error = torch.zeros_like(self.pair[0, 0], dtype=torch.float64)
        self.saved = 0.0

    @property
    def cells(self) -> tuple[Cell, ...]:
        return tuple((int(n), int(t)) for n, t in self.reused.nonzero())

    @property
    def cost(self) -> float:
        return float(self.error.square().sum())

    def _changes(self) -> torch.Tensor:
        """``(layers, steps, numbers)``: by how much the error differs with each cell reused and without."""
        before = torch.zeros(self.layers, self.steps, dtype=torch.long)  # how many before it are reused in a row
        after = torch.zeros_like(before)
        for t in range(1, self.steps):
            before[:, t] = (before[:, t - 1] + 1) * self.reused[:, t - 1]
            after[:, -1 - t] = (after[:, -t] + 1) * self.reused[:, -t]
        n, t = torch.arange(self.layers)[:, None], torch.arange(self.steps)[None, :]
        age = before.clamp_max(self.ages - 1)
        back = self.pair[t, age]
        with_it = self.reused.sum(0)[:, None]
        change = self.alone[n, t, age] - with_it * back  # its own error, less what it takes back for those at its step,
        change -= (back * self.reused[:, :, None]).sum(0)  # less what those take back for it,
        for later in range(1, int(after.max()) + 1):  # and those after it in the row get older
            u = (t + later).clamp_max(self.steps - 1).expand(self.layers, -1)
            old, new = min(later, self.ages) - 1, (before + later).clamp_max(self.ages - 1)
            others = (self.reused.sum(0) - 1)[u][:, :, None]
            older = self.alone[n, u, new] - self.alone[n, u, old] - others * (self.pair[u, new] - self.pair[u, old])
            change += older * (after >= later)[:, :, None]
        return change

    def _change(self, n: int, t: int) -> torch.Tensor:
        """The same of one cell that is not reused now."""

        def age(layer: int, step: int) -> int:
            row = self.reused[layer, :step].flip(0).tolist()
            return min((*row, False).index(False), self.ages - 1)

        others = [layer for layer, here in enumerate(self.reused[:, t].tolist()) if here]
        before = age(n, t)
        change = self.alone[n, t, before] - len(others) * self.pair[t, before]
        for layer in others:
            change = change - self.pair[t, age(layer, t)]
        for later in range(1, self.steps - t):
            u = t + later
            if not self.reused[n, u]:
                break
            old, new = min(later, self.ages) - 1, min(before + later, self.ages - 1)
            back = int(self.reused[:, u].sum()) - 1
            change = change + self.alone[n, u, new] - self.alone[n, u, old] - back * (self.pair[u, new] - self.pair[u, old])
        return change

    def adding(self) -> torch.Tensor:
        """What taking each cell would add to the squared error; infinite where it cannot be taken."""
        change = self._changes()
        added = 2 * (change @ self.error.float()) + change.square().sum(-1)
        return added.double().masked_fill(~self.free | self.reused, torch.inf)

    def turn(self, n: int, t: int) -> None:
        """Take the cell, or give it up."""
        taking = not bool(self.reused[n, t])
        self.reused[n, t] = False
        sign = 1 if taking else -1
        self.error = self.error + sign * self._change(n, t)
        self.reused[n, t] = taking
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
            if not self.reused[cell]:
                continue  # given up for another one since
            cost, error, saved = self.cost, self.error, self.saved
            self.turn(*cell)
            self.free[cell] = False
            taken = self.fill()
            self.free[cell] = True
            if self.saved >= self.target and self.cost < (1 - 1e-9) * cost:
                better = True
                continue
            for back in taken:
                self.reused[back] = False
            self.reused[cell] = True
            self.error, self.saved = error, saved
        return better
