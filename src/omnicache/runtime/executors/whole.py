from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

from omnicache.models.map import Site
from omnicache.policy import Decision, Policy, Tensors
from omnicache.runtime.executors.base import RANKS, Proceed, Role
from omnicache.runtime.executors.partial import Misfit, Partial
from omnicache.runtime.store import versions
from omnicache.runtime.streams import Args, Layout, Shape, Signature, layout_by_shape, leading, tensors_of

if TYPE_CHECKING:
    from omnicache.runtime.evaluation import Pass


class Whole:
    """A site of one module whose output is kept as it is."""

    outer: Role | None = None

    def __init__(self, site: Site, policy: Policy, signatures: Mapping[nn.Module, Signature], number: int = 0):
        self.site, self.policy, self.rank = site, policy, RANKS[site.kind]
        self.number = number  # among the sites of its policy
        self.signature = signatures[site.modules[0]]
        self.partial = Partial(site, policy, policy.which, self.signature) if policy.which is not None else None

    def __call__(self, p: Pass, proceed: Proceed, args: Args, kwargs: Mapping[str, Any]) -> Any:
        if p.forced is Decision.COMPUTE or p.bars(self.site):
            return p.computes(proceed, args, kwargs)
        turn = p.turn(self)
        cell, seen = p.cell(self.policy, self.site, turn), p.shapes.get((self.site, turn))
        reuses = p.reuses(self.policy, self.number)
        if reuses and self.partial is not None and p.forced is None:
            try:
                out = self.partial(p, cell, proceed, args, kwargs)
            except Misfit as why:
                alike = re.sub(r"\d+", "*", self.site.name)
                p.trace.note(f"{alike} is always computed: rows cannot be taken alone, because {why}.")
                return p.computes(proceed, args, kwargs)
            if out is not None:
                return out
        if seen is not None and reuses and cell.ready(p.lag):
            x = self._streams(seen, args, kwargs)
            if x is not None:
                p.count("reused", self.policy)
                return seen[0].fill(cell.estimate(p, x))
        before = self._counts(args, kwargs)
        out = proceed(args, kwargs)
        if p.forced is None:
            shape = Shape(out)
            y = shape.distinct(tensors_of(out))
            bound, model = self.signature.bind(args, kwargs), self.site.kind == "denoiser"
            layout = layout_by_shape(y, bound, channels=model) if self.policy.how.needs_input else None
            seen = (shape, layout)
            x = self._streams(seen, args, kwargs)
            if before != self._counts(args, kwargs):
                p.trace.note(f"{self.site.name} is always computed: it writes to its own input.")
            elif x is not None and y:
                p.shapes[self.site, turn] = seen
                cell.learn(p, x, y)
                cell.watch(p, y)
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
        if seen[1] is None:
            return None
        x = seen[1].read(self.signature.bind(args, kwargs))
        return tuple(leading(t, size) for t, (size, _, _) in zip(x, seen[0].distinct(seen[0].sizes), strict=True))
