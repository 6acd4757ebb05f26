from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from omnicache.kernels import gather_rows, scatter_rows
from omnicache.models.map import Site
from omnicache.policy import Decision, Policy, Tensors
from omnicache.runtime.executors.base import RANKS, Cell, Proceed, Role
from omnicache.runtime.store import versions
from omnicache.runtime.streams import Args, Layout, Shape, Signature, layout_by_shape, tensors_of

if TYPE_CHECKING:
    from omnicache.runtime.evaluation import Pass


class Whole:
    """A site of one module whose output is kept as it is."""

    outer: Role | None = None

    def __init__(self, site: Site, policy: Policy, signatures: Mapping[nn.Module, Signature]):
        self.site, self.policy, self.rank = site, policy, RANKS[site.kind]
        self.signature = signatures[site.modules[0]]

    def __call__(self, p: Pass, proceed: Proceed, args: Args, kwargs: Mapping[str, Any]) -> Any:
        if p.forced is Decision.COMPUTE or p.bars(self.site):
            return p.computes(proceed, args, kwargs)
        turn = p.turn(self)
        cell, seen = p.cell(self.policy, self.site, turn), p.shapes.get((self.site, turn))
        if seen is not None and p.reuses(self.policy) and cell.ready(p.lag):
            x = self._streams(seen, args, kwargs)
            if x is not None:
                if self.policy.which is not None and p.forced is None:
                    return self._rows(p, cell, seen[0], proceed, args, kwargs)
                p.count("reused")
                return seen[0].fill(cell.estimate(p, x))
        before = self._counts(args, kwargs)
        out = proceed(args, kwargs)
        if p.forced is None:
            y = tensors_of(out)
            layout = layout_by_shape(y, self.signature.bind(args, kwargs)) if self.policy.how.needs_input else None
            seen = (Shape(out), layout)
            x = self._streams(seen, args, kwargs)
            if before != self._counts(args, kwargs):
                p.trace.note(f"{self.site.name} is always computed: it writes to its own input.")
            elif x is not None and y:
                p.shapes[self.site, turn] = seen
                cell.learn(p, x, y)
            else:
                p.trace.note(f"{self.site.name} is always computed: which of its inputs its output continues is not clear.")
        p.count("computed")
        return out

    def _counts(self, args: Args, kwargs: Mapping[str, Any]) -> tuple[int, ...]:
        """Counts writes to what the module was given; only where its input takes part."""
        return versions(tensors_of((args, kwargs))) if self.policy.how.needs_input else ()

    def _streams(self, seen: tuple[Shape, Layout | None], args: Args, kwargs: Mapping[str, Any]) -> Tensors | None:
        if not self.policy.how.needs_input:
            return ()
        return None if seen[1] is None else seen[1].read(self.signature.bind(args, kwargs))

    def _rows(self, p: Pass, cell: Cell, shape: Shape, proceed: Proceed, args: Args, kwargs: Mapping[str, Any]) -> Any:
        """Estimate, with the rows that the selector names computed afresh, in the output and in what is kept."""
        assert self.policy.which is not None
        bound = self.signature.bind(args, kwargs)
        tensors = {n: v for n, v in bound.items() if isinstance(v, torch.Tensor)}
        name = next((n for n, v in tensors.items() if v.ndim == 3), None)
        others = [n for n, v in tensors.items() if n != name and name is not None and tensors[name].shape[1] in v.shape]
        if self.site.kind != "mlp" or name is None or others or len(shape.sizes) != 1:
            why = f"{', '.join(others) or 'its outputs'} go with them" if name is not None else "it has none"
            why = why if self.site.kind == "mlp" else "they look at each other in it"
            p.trace.note(f"{self.site.name}: rows cannot be taken alone, because {why}.")
            p.count("reused")
            return shape.fill(cell.estimate(p, ()))
        state = p.selector_state(self.policy)
        x = tensors[name]
        index, state = self.policy.which.choose(state, self.site, p.step, x)
        p.set_selector_state(self.policy, state)
        if index is None:
            p.count("reused")
            return shape.fill(cell.estimate(p, ()))
        rows = tensors_of(proceed(*self.signature.replace(args, kwargs, name, gather_rows(x, index))))[0]
        newest = p.run.keeper.give(cell, cell.history[:1])[0]
        p.count("partial")
        return shape.fill(cell.refresh(p, (scatter_rows(newest.tensors[0], index, rows),)))
