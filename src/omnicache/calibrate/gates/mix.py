from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from omnicache.runtime.hook import Hook
from omnicache.runtime.store import own
from omnicache.runtime.streams import Args, Signature, Tensors, rebuild, tensors_of

Weigh = Callable[[int, Mapping[str, Any]], torch.Tensor]
"""How much a module is computed, from its number and its arguments by name: one number, or one for each sample."""


class Mix:
    """Modules whose outputs are mixed with kept ones, ``out = w * fresh + (1 - w) * kept``, so that gradients reach ``w``.

    Inside ``attached()`` the modules are hooked; what they do is set for a stretch of code by ``keeping`` and ``mixing``, and
    outside of both they are computed and nothing is kept. The model's weights get no gradients there.

    Attributes:
        branch: guidance calls of one step keep values of their own; this is the number of the call in progress.
    """

    def __init__(self, model: nn.Module, modules: Sequence[nn.Module]):
        self.model, self.modules = model, tuple(modules)
        self.branch = 0
        self._kept: dict[tuple[int, int, int], Tensors] = {}
        self._turns: dict[int, int] = {}
        self._keep = False
        self._weigh: Weigh | None = None
        self._renews: Callable[[int], bool] = lambda i: False
        self._signatures = [Signature(m) for m in self.modules]

    @contextmanager
    def attached(self) -> Iterator[Mix]:
        """Afterwards, also after an exception, the model is what it was, and nothing is kept."""
        wanted = [p for p in self.model.parameters() if p.requires_grad]
        hooks: list[Hook] = []
        try:
            for p in wanted:
                p.requires_grad_(False)
            hooks += [Hook(m, self._handler(i)) for i, m in enumerate(self.modules)]
            yield self
        finally:
            for hook in reversed(hooks):
                hook.remove()
            for p in wanted:
                p.requires_grad_(True)
            self._kept.clear()

    def keeping(self) -> Any:
        """The modules are computed, and their outputs kept."""
        return self._set(keep=True)

    def mixing(self, weigh: Weigh, renews: Callable[[int], bool] = lambda i: False) -> Any:
        """The modules are mixed, with gradients. The mix takes the kept value's place where ``renews(number)`` says so."""
        return self._set(weigh=weigh, renews=renews)

    @contextmanager
    def _set(
        self, keep: bool = False, weigh: Weigh | None = None, renews: Callable[[int], bool] = lambda i: False
    ) -> Iterator[None]:
        self._keep, self._weigh, self._renews = keep, weigh, renews
        self._turns.clear()
        try:
            with torch.set_grad_enabled(weigh is not None):
                yield
        finally:
            self._keep, self._weigh = False, None

    def _handler(self, i: int) -> Callable[..., Any]:
        return lambda call, args, kwargs: self._visit(i, call, args, kwargs)

    def _visit(self, i: int, call: Callable[..., Any], args: Args, kwargs: dict[str, Any]) -> Any:
        out = call(*args, **kwargs)
        if not self._keep and self._weigh is None:
            return out
        turn = self._turns[i] = self._turns.get(i, -1) + 1  # some models call a module several times
        place, fresh = (self.branch, i, turn), tensors_of(out)
        before = self._kept.get(place, ())
        if self._weigh is not None and [t.shape for t in before] == [t.shape for t in fresh]:
            w = self._weigh(i, self._signatures[i].bind(args, kwargs))
            fresh = tuple(_mixed(w, a, b) for a, b in zip(fresh, before, strict=True))
        if self._keep or self._renews(i):
            self._kept[place] = own(fresh)
        return rebuild(out, fresh)


def _mixed(w: torch.Tensor, fresh: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    w = w.to(fresh.dtype)
    if w.ndim:
        w = w.view(-1, *(1,) * (fresh.ndim - 1))
    return w * fresh + (1 - w) * kept
