from __future__ import annotations

from collections.abc import Hashable
from typing import Any
from weakref import ReferenceType

import torch
from torch import nn

from omnicache.models.latent import Latent
from omnicache.models.map import Site
from omnicache.policy import Corrector, Policy, Signal, Tensors
from omnicache.runtime.executors import Cell, ChainState, RegionState
from omnicache.runtime.executors.chain import set_of
from omnicache.runtime.streams import Layout, Shape, tensors_of


class BranchState:
    """All that is kept for one guidance pass of a run."""

    def __init__(self, geometry: Any):
        self.geometry = geometry
        self.cells: dict[tuple[int, Site, Hashable], Cell] = {}  # by policy, site, and number of the call within a pass
        self.chains: dict[tuple[int, Site, Hashable], ChainState] = {}
        self.regions: dict[tuple[int, Site, Hashable], RegionState] = {}
        self.shapes: dict[tuple[Site, Hashable], tuple[Shape, Layout | None]] = {}
        self.selectors: dict[Policy, Any] = {}
        self.correctors: dict[Corrector, Any] = {}
        self.seen: dict[tuple[Signal, nn.Module], Tensors] = {}
        self.told: dict[Signal, list[torch.Tensor | None]] = {}  # what modules have shown when they ran, site by site
        self.entered: list[nn.Module] = []  # the rows' first blocks in the order of their calls
        self.latent: Latent | None = None  # what the denoiser is given, where a selector must know
        self.condition: ReferenceType[torch.Tensor] | None = None
        self.ahead: dict[int, Any] = {}  # outputs of steps to come, by their indices
        self.given: dict[str, Any] = {}  # the arguments that they were made of
        self.corrects: int | None = None  # bytes of what a corrector keeps, once they are known
        self.doubled: int | None = None  # rows of its batch, if the halves of that are both branches of guidance; else 0
        self.halves: dict[int, BranchState] = {}  # what is kept for one of them alone
        self.guidance: Cell | None = None  # what leads to this branch, or half, from the other one
        self.output: Tensors = ()  # what it has returned at the step in progress, where guidance may ask for it
        self.at = -1  # the step of its last evaluation
        self.missed = False  # whether it was left out of steps since then

    @property
    def blank(self) -> bool:
        """Whether nothing was evaluated in it yet."""
        return not (self.cells or self.chains or self.regions)

    def free(self) -> None:
        """Let go of everything now: a traceback or a cycle may hold this object itself for longer."""
        self.forget()
        for half in self.halves.values():
            half.free()
        self.guidance, self.output = None, ()
        for table in (self.cells, self.chains, self.regions, self.shapes, self.ahead, self.given, self.halves):
            table.clear()

    def named_cells(self) -> dict[Hashable, Cell]:
        """The cells of the sites inside the model, by names that a half has too."""
        found: dict[Hashable, Cell] = {**self.cells}
        found |= {(key, s.first, s.last): s.cell for key, c in self.chains.items() for s in set_of(c.owner.values())}
        return found | {(key, "exit"): r.cell for key, r in self.regions.items()}

    def all_cells(self) -> list[Cell]:
        """The cells of all sites."""
        inner = [cell for half in self.halves.values() for cell in half.all_cells()]
        return [*self.named_cells().values(), *inner, *([self.guidance] if self.guidance is not None else [])]

    def forget(self) -> None:
        """Nothing will be estimated any more: what takes part in that can go."""
        self.corrects = 0
        for half in self.halves.values():
            half.forget()
        for table in (self.selectors, self.correctors, self.seen, self.told):
            table.clear()

    def kept(self) -> list[Any]:
        return [
            [cell.history for cell in self.all_cells()],
            self.selectors,
            self.correctors,
            self.seen,
            self.told,
            self.output,
            list(map(tensors_of, self.ahead.values())),
            [half.kept() for half in self.halves.values()],
        ]
