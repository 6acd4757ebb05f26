"""One half of a batch run alone: what it is given of a call, and of what is kept for the whole."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from omnicache.models.map import Site
from omnicache.policy import Tensors
from omnicache.runtime.branch import BranchState
from omnicache.runtime.call import Call
from omnicache.runtime.executors import Cell
from omnicache.runtime.ranks import Ranks
from omnicache.runtime.streams import rebuild, tensors_of

if TYPE_CHECKING:
    from omnicache.runtime.run import Run

SAMPLE = 512
"""So many numbers of a value are looked at where it is checked that it has two halves."""

Part = tuple[int, Site]
"""A policy, by its id, at a site."""


@dataclass(frozen=True)
class Half:
    """The first (0) or the second (1) half of a batch."""

    index: int

    def of(self, t: torch.Tensor) -> torch.Tensor:
        """Its rows, as a view."""
        rows = t.shape[0] // 2
        return t[rows * self.index : rows * (self.index + 1)]

    def call(self, call: Call, rows: int) -> Call:
        """The same call for this half: every argument with ``rows`` rows, those of the whole batch, is halved."""

        def part(given: Any) -> Any:
            return rebuild(given, tuple(self.of(t) if t.ndim and t.shape[0] == rows else t for t in tensors_of(given)))

        return Call(call.plain, part(call.args), part(dict(call.kwargs)), call.signature)

    def join(self, mine: Tensors, others: Tensors) -> Tensors:
        """Whole values, from those of this half and those of the other."""
        return tuple(torch.cat((a, b) if self.index == 0 else (b, a)) for a, b in zip(mine, others, strict=True))


class Witness:
    """Sees the values that are learned in a pass, by samples: to compare those of the whole batch with those of a half alone.

    Args:
        half: the half to look at in a pass over the whole; None in a pass over the half, in which nothing is to be kept.
    """

    def __init__(self, half: Half | None):
        self.half = half
        self._seen: dict[Part, list[tuple[tuple[torch.Size, torch.Tensor] | None, ...]]] = {}

    def sees(self, cell: Cell, y: Tensors) -> bool:
        """Take a look at a value. Whether that is all that should be done with it."""
        self._seen.setdefault((id(cell.policy), cell.site), []).append(tuple(self._look(t) for t in y))
        return self.half is None

    def _look(self, t: torch.Tensor) -> tuple[torch.Size, torch.Tensor] | None:
        if self.half is not None:
            if t.ndim == 0 or t.shape[0] % 2:
                return None
            t = self.half.of(t)
        flat = t.detach().reshape(-1)
        return t.shape, flat[:: max(1, len(flat) // SAMPLE)].float().clone()

    def agreeing(self, alone: Witness, ranks: Ranks) -> set[Part]:
        """The parts whose values in a pass over the half alone were the rows of the half here."""
        found = set()
        for part, whole in self._seen.items():
            half = alone._seen.get(part, [])
            pairs = [(a, b) for one, other in zip(whole, half, strict=False) for a, b in zip(one, other, strict=False)]
            good = [len(one) for one in whole] == [len(other) for other in half] and all(
                a is not None and b is not None and a[0] == b[0] and near(a[1], b[1]) for a, b in pairs
            )
            device = next((a[1].device for a, _ in pairs if a is not None), None)
            if device is not None and not ranks.any(not good, device):
                found.add(part)
        return found


def near(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two computations of one value agree but for their rounding, which depends on the size of a batch. Waits for a
    device."""
    if a.shape != b.shape:
        return False
    slack = max(1e-3, 8 * torch.finfo(a.dtype).eps) if a.is_floating_point() else 0.0
    return bool((a - b).abs().amax() <= slack * a.abs().amax()) if a.numel() else True


def catch_up(mine: BranchState, whole: BranchState, half: Half, divisible: Container[Part], run: Run) -> None:
    """Let a half take over what the whole batch has learned since the half was last run: its rows of that.

    Args:
        divisible: where it was seen that a half alone has the rows of the whole; elsewhere the half must compute.
    """
    if mine.at > whole.at:
        return
    mine.shapes.update(whole.shapes)
    mine.chains |= {key: chain.halved(mine.chains.get(key)) for key, chain in whole.chains.items()}
    mine.regions |= {key: region.halved(mine.regions.get(key)) for key, region in whole.regions.items()}
    for key, cell in whole.cells.items():
        mine.cells.setdefault(key, Cell(cell.policy, cell.site))
    ours = mine.named_cells()
    for key, cell in whole.named_cells().items():
        if (id(cell.policy), cell.site) in divisible:
            _take_over(ours[key], cell, half, run)
    rows = {key: tuple(half.of(t) for t in seen) for key, seen in whole.seen.items() if all(t.ndim for t in seen)}
    mine.seen.update(rows)


def _take_over(mine: Cell, cell: Cell, half: Half, run: Run) -> None:
    known = mine.history[0].step.index if mine.history else -1
    newer = [e for e in cell.history if e.step.index > known]
    if not newer:
        return
    keeper, history = run.keeper, mine.history
    for entry in reversed(newer):
        history = keeper.how[id(cell.policy)].learn(history, entry.step, (), tuple(half.of(t) for t in entry.tensors))
    mine.form, mine.counts = cell.form, tuple(n // 2 for n in cell.counts)
    mine.hold(history)
    mine.lent.always_copy |= cell.lent.always_copy
    keeper.admit(run, mine)


def drop_stale(state: BranchState, run: Run, now: int) -> None:
    """Let a branch that was left out of some steps forget what is older than what others have computed in them: reused now, it
    would be older than its trigger takes it for."""
    for key, cell in state.named_cells().items():
        for half in state.halves.values():  # what the model has written to in a half is also part of the whole
            if (other := half.named_cells().get(key)) is not None and other.lent.spoiled():
                other.hold(())
                cell.hold(())
        last = run.triggers[cell.policy.when].last
        if cell.history and last is not None and cell.history[0].step.index < last.index < now:
            cell.hold(())
