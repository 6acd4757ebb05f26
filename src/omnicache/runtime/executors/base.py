"""What all executors share: the cell that keeps one site's history, and the order of roles on one module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import torch

from omnicache.errors import OmniCacheError
from omnicache.models.map import Site
from omnicache.policy import Entry, History, Policy, Tensors
from omnicache.runtime.store import Lent, own
from omnicache.runtime.streams import Args

if TYPE_CHECKING:
    from omnicache.runtime.evaluation import Pass

Proceed = Callable[[Args, Mapping[str, Any]], Any]
"""Runs what lies further inside: other roles on this module, and in the end the module."""


class Role(Protocol):
    """One thing to do at the calls of one module."""

    rank: int
    """Outer roles have lower ranks."""
    outer: Role | None
    """The next role around this one that may keep it from being called; None where there is none."""

    def __call__(self, p: Pass, proceed: Proceed, args: Args, kwargs: Mapping[str, Any]) -> Any: ...


class Cell:
    """What one site keeps for one branch of one run: its history, and what was lent of it.

    Attributes:
        form: dtype and device of each tensor of a value, as the model gave it.
        counts: their sizes.
    """

    __slots__ = ("__weakref__", "counts", "form", "history", "lent", "policy", "site")

    def __init__(self, policy: Policy, site: Site) -> None:
        self.policy, self.site = policy, site
        self.history: History = ()
        self.lent = Lent()
        self.form: tuple[tuple[torch.dtype, torch.device], ...] = ()
        self.counts: tuple[int, ...] = ()

    def ready(self, lag: int) -> bool:
        if self.lent.spoiled():
            self.history = ()
        return len(self.history) > lag

    def learn(self, p: Pass, x: Tensors, y: Tensors, owned: bool = False) -> None:
        """``owned``: nobody else has ``y``, so it can be kept as it is. A difference of output and input is new anyway.

        Raises:
            OmniCacheError: the predictor cannot stand for such a value.
        """
        if (why := self.policy.how.misfit(y)) is not None:
            method, name = p.session.plan.method, type(p.session.model.model).__name__
            raise OmniCacheError(f"{method} cannot stand for what {self.site.name} of {name} returns: {why}.")
        if p.witness is not None and p.witness.sees(self, y):
            return
        if self.lent.spoiled():
            self.history = ()
        self.lent.forget()
        keeper = p.run.keeper
        if not self.policy.how.suits(p.step, y):
            p.trace.note(f"{self.site.name} is always computed: how what it returns lies in a picture is not known.")
            return
        if not self.form:  # before the first value is kept, so that the first step of a run shows all that it will hold
            self.form, self.counts = tuple((t.dtype, t.device) for t in y), tuple(t.numel() for t in y)
            keeper.admit(p.run, self)
        if not keeper.wants(self, p.step):
            self.history = keeper.keep(self, self.history, p.step)
            return
        with torch.no_grad():  # a history that remembered how it came about would hold the activations of old steps
            kept = y if owned or (x and self.policy.how.needs_input) else own(y)
            history = keeper.how[id(self.policy)].learn(self.history, p.step, x, kept)
        self.history = keeper.keep(self, history, p.step)

    def watch(self, p: Pass, y: Tensors) -> None:
        """Who writes to what the module has just returned (FreeU does) will write to what is lent in its place, too."""
        if self.lent.always_copy:
            return
        watch = Lent()
        watch.watch(y)

        def look() -> None:
            self.lent.always_copy |= watch.spoiled()

        p.on_finish(look)

    def hold(self, history: History) -> None:
        """Keep these entries and no others."""
        self.history = history
        self.lent.forget(but=history)

    def estimate(self, p: Pass, x: Tensors) -> Tensors:
        keeper, history = p.run.keeper, self.history[p.lag :]
        found = self.lent.lend(history, keeper.how[id(self.policy)].estimate(keeper.give(self, history), p.step, x))
        return found if p.copies == 1 else tuple(torch.cat([t] * p.copies) for t in found)

    def renew(self, p: Pass, fresh: Tensors) -> None:
        """Keep ``fresh``, which nobody else has, in the place of the newest value, some of whose rows were computed anew."""
        with torch.no_grad():
            kept = p.run.keeper.put(self, (Entry(self.history[0].step, fresh),))
        self.history = (*kept, *self.history[1:])
        self.lent.forget(but=self.history[1:])  # the newest may be the very tensor that was lent before, and we have written to it


RANKS = {"denoiser": 0, "stack": 2, "deep": 2, "encoder": 2, "block": 4, "layer": 4, "attention": 6, "cross_attention": 6, "mlp": 6}
