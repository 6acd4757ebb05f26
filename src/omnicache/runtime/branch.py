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
from omnicache.runtime.streams import Layout, Shape


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
        self.corrects: int | None = None  # bytes of what a corrector keeps, once they are known

    @property
    def blank(self) -> bool:
        """Whether nothing was evaluated in it yet."""
        return not (self.cells or self.chains or self.regions)

    def free(self) -> None:
        """Let go of everything now: a traceback or a cycle may hold this object itself for longer."""
        self.forget()
        for table in (self.cells, self.chains, self.regions, self.shapes):
            table.clear()

    def all_cells(self) -> list[Cell]:
        """The cells of all sites."""
        chains = [s.cell for c in self.chains.values() for s in set_of(c.owner.values())]
        return [*self.cells.values(), *chains, *(r.cell for r in self.regions.values())]

    def forget(self) -> None:
        """Nothing will be estimated any more: what takes part in that can go."""
        self.corrects = 0
        for table in (self.selectors, self.correctors, self.seen, self.told):
            table.clear()

    def kept(self) -> list[Any]:
        return [[cell.history for cell in self.all_cells()], self.selectors, self.correctors, self.seen, self.told]
