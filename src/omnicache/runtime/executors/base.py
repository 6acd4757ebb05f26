"""What all executors share: the cell that keeps one site's history, and the order of roles on one module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import torch

from omnicache.policy import History, Policy, Tensors
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

    def __call__(self, p: Pass, proceed: Proceed, args: Args, kwargs: Mapping[str, Any]) -> Any: ...


class Cell:
    """What one site keeps for one branch of one run: its history, and what was lent of it."""

    __slots__ = ("history", "lent")

    def __init__(self) -> None:
        self.history: History = ()
        self.lent = Lent()

    def ready(self, lag: int) -> bool:
        if self.lent.spoiled():
            self.history = ()
        return len(self.history) > lag

    def learn(self, p: Pass, policy: Policy, x: Tensors, y: Tensors, owned: bool = False) -> None:
        """``owned``: nobody else has ``y``, so it can be kept as it is. A difference of output and input is new anyway."""
        if self.lent.spoiled():
            self.history = ()
        self.lent.forget()
        with torch.no_grad():  # a history that remembered how it came about would hold the activations of old steps
            kept = y if owned or (x and policy.how.needs_input) else own(y)
            self.history = policy.how.learn(self.history, p.step, x, kept)

    def estimate(self, p: Pass, policy: Policy, x: Tensors) -> Tensors:
        history = self.history[p.lag :]
        return self.lent.lend(history, policy.how.estimate(history, p.step, x))


RANKS = {"denoiser": 0, "stack": 2, "deep": 2, "block": 4, "attention": 6, "cross_attention": 6, "mlp": 6}
