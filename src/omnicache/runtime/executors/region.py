from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

from omnicache.models.map import Site
from omnicache.policy import Decision, Policy, Tensors
from omnicache.runtime.executors.base import RANKS, Cell, Proceed, Role
from omnicache.runtime.store import Lent, own
from omnicache.runtime.streams import Args, Shape, Signature, tensors_of

if TYPE_CHECKING:
    from omnicache.runtime.evaluation import Pass


class RegionState:
    """Of one region in one branch: the shapes of its modules' outputs, and which of them was called last (the exit).

    What comes after the exit may write to its output (FreeU does), so it is copied before the pass goes on.
    """

    __slots__ = ("cell", "exit", "last", "shapes", "value", "watch")

    def __init__(self, policy: Policy, site: Site) -> None:
        self.cell = Cell(policy, site)
        self.shapes: dict[nn.Module, Shape] = {}
        self.exit: nn.Module | None = None  # known after the first computed pass
        self.last: nn.Module | None = None  # of this pass
        self.value: Tensors = ()
        self.watch = Lent()

    def halved(self, before: RegionState | None) -> RegionState:
        """The same for one half of the batch, with the cell that the half had ``before``."""
        made = RegionState(self.cell.policy, self.cell.site)
        made.cell = before.cell if before is not None else made.cell
        made.shapes, made.exit = {m: shape.halved() for m, shape in self.shapes.items()}, self.exit
        return made


class Region:
    """A module of a region: passed over by a stand-in when the region is reused, unless it is the exit."""

    outer: Role | None = None

    def __init__(self, site: Site, index: int, policy: Policy, signatures: Mapping[nn.Module, Signature], number: int = 0):
        self.site, self.policy, self.rank = site, policy, RANKS[site.kind]
        self.number = number  # among the sites of its policy
        self.module = site.modules[index]

    def __call__(self, p: Pass, proceed: Proceed, args: Args, kwargs: Mapping[str, Any]) -> Any:
        if p.forced is Decision.COMPUTE or p.distrusts(self.policy, self.site) or p.bars(self.site):
            return p.computes(proceed, args, kwargs)
        state = p.region(self.policy, self.site, p.turn(self))
        if p.reuses(self.policy, self.number) and self.module in state.shapes and state.cell.ready(p.lag):
            p.count("reused", self.policy)
            shape = state.shapes[self.module]
            if self.module is state.exit:
                return shape.fill(state.cell.estimate(p, ()))
            return shape.poison() if p.proves(self.policy, self.site) else shape.stand_in()
        out = proceed(args, kwargs)
        if p.forced is None:
            if state.last is None:
                p.on_finish(lambda: self._finish(p, state))
            if tensors_of(out):  # what shows none is never passed over, and may hold some
                state.shapes[self.module] = Shape(out)
            state.last, state.value = self.module, ()
            if state.exit is None or state.exit is self.module:
                state.value = own(tensors_of(out))
                state.watch.watch(tensors_of(out))
        p.count("computed")
        return out

    def _finish(self, p: Pass, state: RegionState) -> None:
        value, state.value = state.value, ()
        state.exit, state.last = state.last if value else None, None
        state.cell.lent.always_copy |= state.watch.spoiled()  # what is written to now will be when it is lent, too
        state.watch.watch(())
        if value:
            state.cell.learn(p, (), value, owned=True)
        else:
            state.cell.history = ()  # another module than before was the last: its value is learned next time
