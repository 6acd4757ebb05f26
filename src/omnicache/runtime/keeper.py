"""How values are kept in one run: for how long, in which form, and within the memory that is allowed.

From the first value of a site on it is known how much it will hold at each step of the run. Where all sites together would pass
the limit, the keeper gives way one rung at a time, before it happens: half precision, the host's memory, a lower order of the
predictors, fewer sites. What is kept already follows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch

from omnicache.guards import Guards
from omnicache.models.map import Site
from omnicache.policy import Entry, History, Policy, Predictor, Tensors
from omnicache.runtime.step import Step
from omnicache.runtime.window import Window

if TYPE_CHECKING:
    from omnicache.runtime.executors import Cell
    from omnicache.runtime.run import Run

HALF = torch.bfloat16
"""float16 has more digits, and overflows on what some models hold between their blocks."""
HOST = torch.device("cpu")


@dataclass(frozen=True)
class Thrift:
    """What was given up to stay within a limit."""

    half: bool = False
    host: bool = False
    orders: int = 0
    left: frozenset[Site] = frozenset()

    def __str__(self) -> str:
        told = [f"values are kept as {str(HALF).removeprefix('torch.')}"] * self.half
        told += ["values are kept in the host's memory"] * self.host
        told += [f"predictors take {self.orders} value{'s' * (self.orders > 1)} fewer"] * bool(self.orders)
        told += [f"{len(self.left)} site{'s are' if len(self.left) > 1 else ' is'} always computed"] * bool(self.left)
        return ", ".join(told)


class Keeper:
    """Keeps the values of one run.

    Args:
        policies: the plan's.
        guards: what may be held on the model's device.

    Attributes:
        limit: the same in bytes; None for no limit.
        how: the predictor of each policy, by the policy's id.
        window: what is to come.
        thrift: what was given up.
        predicted: bytes held at the fullest step of the run, as far as its sites are known.
    """

    def __init__(self, policies: Iterable[Policy], guards: Guards):
        self.policies, self.guards, self.limit = tuple(policies), guards, guards.bytes
        self.how: Mapping[int, Predictor] = {id(p): p.how for p in self.policies}
        self.window = Window(self.policies, self.how)
        self.thrift = Thrift()
        self.predicted = 0
        self._cells: WeakKeyDictionary[Cell, None] = WeakKeyDictionary()  # those that have held something, oldest first

    # --- one cell ------------------------------------------------------------------------------------------------------

    def wants(self, cell: Cell, step: Step) -> bool:
        """Whether a value computed at ``step`` will be used."""
        return cell.site not in self.thrift.left and self.window.wants(cell.policy, step.index, step.index)

    def keep(self, cell: Cell, history: History, step: Step) -> History:
        """Those entries that are used after ``step``, in the form in which they are kept."""
        if cell.site in self.thrift.left:
            return ()
        return self.put(cell, tuple(e for e in history if self.window.wants(cell.policy, e.step.index, step.index)))

    def put(self, cell: Cell, history: History) -> History:
        """The entries in the form in which they are kept."""
        form = tuple((HALF if self._halves(t) else t, HOST if self._moves(d) else d) for t, d in cell.form)
        return tuple(_formed(e, form) for e in history)

    def give(self, cell: Cell, history: History) -> History:
        """The entries as they were learned."""
        if not (self.thrift.half or self.thrift.host):
            return history
        return tuple(_formed(e, cell.form) for e in history)

    # --- all cells together --------------------------------------------------------------------------------------------

    def admit(self, run: Run, cell: Cell) -> None:
        """What a site holds, or will hold, is known: give way if it is the first time."""
        if cell in self._cells:
            return
        self._cells[cell] = None
        if self.limit is not None:
            self.settle(run)

    def settle(self, run: Run, held: int = 0) -> bool:
        """Give way until all that will be held is within the limit, and what is held now, too. False if it cannot be met."""
        self.predicted = self._predict(run)
        while self._passes(run, max(self.predicted, held)):
            if not self._give_way():
                return False
            for cell in list(self._cells):
                cell.hold(self.keep(cell, cell.history, Step(run.at)))
            self.predicted, held = self._predict(run), min(held, run.bytes())
        return True

    def _passes(self, run: Run, count: int) -> bool:
        """Whether that is above the limit, here or on another rank: what all ranks give up, each of them does."""
        if self.limit is None:
            return False
        device = next((d for cell in list(self._cells) for _, d in cell.form), HOST)
        return run.ranks.any(count > self.limit, device)

    def _predict(self, run: Run) -> int:
        sizes = dict.fromkeys(self.how, 0)
        for cell in self._staying():
            sizes[id(cell.policy)] += self._entry_bytes(cell)
        lengths = [(self.window.lengths(policy), sizes[id(policy)]) for policy in self.policies]
        steps = range(max((len(ls) for ls, _ in lengths), default=0))
        return run.other_bytes() + max((sum((ls[i] if len(ls) > 1 else ls[0]) * n for ls, n in lengths) for i in steps), default=0)

    def unlimited(self, run: Run) -> int:
        """Bytes that would be held at the fullest step from now on if nothing had been given up."""
        given = self.how, self.window, self.thrift
        try:
            self.how = {id(p): p.how for p in self.policies}
            self.window, self.thrift = self.window.with_how(self.how), Thrift()
            return self._predict(run)
        finally:
            self.how, self.window, self.thrift = given

    def _staying(self) -> list[Cell]:
        return [cell for cell in list(self._cells) if cell.site not in self.thrift.left]

    def _entry_bytes(self, cell: Cell) -> int:
        """What one value of a site takes on the device."""
        how = self.how[id(cell.policy)]
        return how.copies * sum(
            count * (HALF if self._halves(dtype) else dtype).itemsize
            for count, (dtype, device) in zip(cell.counts, cell.form, strict=True)
            if not self._moves(device)
        )

    def _halves(self, dtype: torch.dtype) -> bool:
        return self.thrift.half and dtype.is_floating_point and dtype.itemsize > HALF.itemsize

    def _moves(self, device: torch.device) -> bool:
        return self.thrift.host and device.type != "cpu"

    def _give_way(self) -> bool:
        """One rung down; False if there is none."""
        kinds = {kind for cell in self._staying() for kind in cell.form}
        lower = {id(p): low for p in self.policies if (low := self.how[id(p)].lower()) is not None}
        if not self.thrift.half and any(t.is_floating_point and t.itemsize > HALF.itemsize for t, _ in kinds):
            self.thrift = replace(self.thrift, half=True)
        elif not self.thrift.host and any(d.type != "cpu" for _, d in kinds):
            self.thrift = replace(self.thrift, host=True)
        elif lower and kinds:
            self.how = {**self.how, **lower}
            self.window = self.window.with_how(self.how)
            self.thrift = replace(self.thrift, orders=self.thrift.orders + 1)
        elif kinds:
            self.thrift = replace(self.thrift, left=self.thrift.left | {self._least()})
        return bool(kinds)

    def _least(self) -> Site:
        """The site that saves the least work for its memory, by the parameters that need not run."""
        takes: dict[Site, int] = {}
        for cell in self._staying():
            takes[cell.site] = takes.get(cell.site, 0) + self._entry_bytes(cell)
        saves = {site: sum(p.numel() for m in site.modules for p in m.parameters()) for site in takes}
        return min(takes, key=lambda site: saves[site] / max(takes[site], 1))

    def __str__(self) -> str:
        """What was given up, as a sentence; empty if nothing was."""
        return "" if self.limit is None or self.thrift == Thrift() else f"To hold at most {self.guards}: {self.thrift}."


def _formed(entry: Entry, form: tuple[tuple[torch.dtype, torch.device], ...]) -> Entry:
    if all((t.dtype, t.device) == kind for t, kind in zip(entry.tensors, form, strict=True)):
        return entry
    tensors: Tensors = tuple(t.to(device, dtype) for t, (dtype, device) in zip(entry.tensors, form, strict=True))
    return Entry(entry.step, tensors)
