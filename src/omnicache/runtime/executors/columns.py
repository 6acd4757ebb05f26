from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from omnicache.models.map import Site
from omnicache.policy import Policy, Tensors
from omnicache.runtime.executors.base import RANKS, Cell, Proceed, Role
from omnicache.runtime.streams import Args, Signature

if TYPE_CHECKING:
    from omnicache.runtime.evaluation import Pass


class Unlike(Exception):
    """A module does other things inside than it did when it was learned."""


class ByColumns:
    """A site that runs at every step, on a reuse step with some of its columns only: a selector says which.

    What makes up for the others is kept in the site's cell: see the two kinds.
    """

    outer: Role | None = None
    distrusted = ""
    """Why the site is always computed once its proof has failed."""

    def __init__(self, site: Site, policy: Policy, signatures: Mapping[nn.Module, Signature], number: int = 0):
        self.site, self.policy, self.rank = site, policy, RANKS[site.kind]
        self.number = number  # among the sites of its policy
        self.module = site.modules[0]
        self.group = policy.which.group if policy.which is not None else 0
        self.signature = signatures[self.module]

    def __call__(self, p: Pass, proceed: Proceed, args: Args, kwargs: Mapping[str, Any]) -> Any:
        if p.forced is None and p.distrusts(self.policy, self.site):
            self.whole(p, self.distrusted)
            return p.computes(proceed, args, kwargs)
        if p.forced is not None or p.bars(self.site):
            return p.computes(proceed, args, kwargs)
        turn = p.turn(self)
        cell = p.cell(self.policy, self.site, turn)
        if p.reuses(self.policy, self.number) and cell.ready(0):
            kept = p.run.keeper.give(cell, cell.history[:1])[0].tensors
            try:
                out = self.some(p, cell, turn, kept, proceed, args, kwargs)
            except Unlike:
                cell.hold(())  # some of it may have been renewed
            else:
                p.count("partial", self.policy)
                return out
        out = self.all(p, cell, turn, proceed, args, kwargs)
        p.count("computed")
        return out

    def all(self, p: Pass, cell: Cell, turn: Any, proceed: Proceed, args: Args, kwargs: Mapping[str, Any]) -> Any:
        """The module's own output, while its parts are learned."""
        raise NotImplementedError

    def some(self, p: Pass, cell: Cell, turn: Any, kept: Tensors, proceed: Proceed, args: Args, kwargs: Mapping[str, Any]) -> Any:
        """The output with some columns as they are now, and the rest as they were.

        Raises:
            Unlike: nothing is known of what the module does now.
        """
        raise NotImplementedError

    def whole(self, p: Pass, why: str) -> None:
        """Say that the site is always computed."""
        alike = re.sub(r"\d+", "*", self.site.name)
        p.trace.note(f"{alike} is always computed: {why}.")


def wide(t: torch.Tensor) -> torch.dtype:
    """In which differences of such tensors are added up."""
    return torch.promote_types(t.dtype, torch.float32)
