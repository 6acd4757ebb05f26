"""Roles that change nothing: they show selectors, triggers and checks what happens at a module."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from omnicache.kernels import change_of, change_sums
from omnicache.models.map import Site
from omnicache.policy import Decision, Policy, Signal, Trigger
from omnicache.runtime.executors.base import Proceed, Role
from omnicache.runtime.hook import Hook
from omnicache.runtime.seen import ENTERED, PEEKED, moving
from omnicache.runtime.store import own
from omnicache.runtime.streams import Args, Signature, rebuild, tensors_of

if TYPE_CHECKING:
    from omnicache.runtime.evaluation import Pass


class Watch:
    """Shows a selector what happens at a site on computed steps."""

    rank = 5
    outer: Role | None = None

    def __init__(self, site: Site, policy: Policy, signatures: Mapping[nn.Module, Signature]):
        self.site, self.policy, self.signature = site, policy, signatures[site.modules[0]]

    def __call__(self, p: Pass, proceed: Proceed, args: Args, kwargs: Mapping[str, Any]) -> Any:
        out = proceed(args, kwargs)
        if p.forced is None and not p.reuses(self.policy) and self.policy.which is not None:
            state = p.selector_state(self.policy)
            state = self.policy.which.observe(state, self.site, self.signature.bind(args, kwargs), out)
            p.set_selector_state(self.policy, state)
        return out


class Around:
    """Remembers what a block is given while it runs, for selectors that choose for all sites in it."""

    rank = 5
    outer: Role | None = None

    def __init__(self, name: str, module: nn.Module, signatures: Mapping[nn.Module, Signature]):
        self.name, self.signature = name, signatures[module]

    def __call__(self, p: Pass, proceed: Proceed, args: Args, kwargs: Mapping[str, Any]) -> Any:
        bound = self.signature.bind(args, kwargs)
        found = bound.get("hidden_states")
        if isinstance(found, torch.Tensor) and found.ndim == 3:
            p.blocks[self.name] = found
        try:
            return proceed(args, kwargs)
        finally:
            p.blocks.pop(self.name, None)
            p.chosen.pop(self.name, None)


class After:
    """Measures a signal on what a module returns, whenever it runs."""

    rank = 9
    outer: Role | None = None

    def __init__(self, signal: Signal, module: nn.Module, site: int, sites: int):
        self.signal, self.module, self.site, self.sites = signal, module, site, sites

    def __call__(self, p: Pass, proceed: Proceed, args: Args, kwargs: Mapping[str, Any]) -> Any:
        out = proceed(args, kwargs)
        if p.forced is None:
            p.tell(self.signal, self.module, out, self.site, self.sites)
        return out


class Check:
    """Compares, at one site, what the estimates inside it lead to with what computing it gives, on the same input."""

    rank = 3
    outer: Role | None = None

    def __init__(self, site: Site, trigger: Trigger):
        self.site, self.trigger = site, trigger

    def __call__(self, p: Pass, proceed: Proceed, args: Args, kwargs: Mapping[str, Any]) -> Any:
        checked = p.forced is None and p.checks(self.trigger)
        again = _copied(args, kwargs) if checked else (args, kwargs)
        draft = proceed(args, kwargs)
        if checked:
            with p.nested(Decision.COMPUTE):
                truth = proceed(*again)
            pairs = zip(tensors_of(draft), tensors_of(truth), strict=True)
            if sums := p.run.ranks.total([change_sums(a, b) for a, b in pairs]):
                p.report_error(self.trigger, torch.stack([change_of(s).max() for s in sums]).max())
            # Of an output that nothing can see into the error stays unknown, and the draft is not accepted.
        return draft


class Probe:
    """Measures the signals that can be read at a block, and so lets the triggers that wait for them decide.

    What the first block makes of its input before it attends is had by running it up to its first attention, and no further. The
    hooks for that are there only as long: a compiled block must not find them inside.
    """

    rank = 1
    outer: Role | None = None

    def __init__(
        self,
        at: str | int,
        block: nn.Module,
        signatures: Mapping[nn.Module, Signature],
        attention: tuple[nn.Module, ...] = (),
    ):
        self.at, self.block, self.signature, self.attention = at, block, signatures[block], attention
        self._lock = threading.Lock()

    def __call__(self, p: Pass, proceed: Proceed, args: Args, kwargs: Mapping[str, Any]) -> Any:
        if self.at == 0 and p.entered is None:
            p.entered = next(iter(own(moving(self.signature.bind(args, kwargs))[:1])), None)
        if p.forced is None and p.turn(self) == 0:  # where blocks are run several times, the first time tells
            bound = self.signature.bind(args, kwargs)
            seen = self._peek(p, args, kwargs) if self.attention else None
            p.measure(self.at, self.block, {**bound, PEEKED: seen, ENTERED: p.entered})
        return proceed(args, kwargs)

    def _peek(self, p: Pass, args: Args, kwargs: Mapping[str, Any]) -> torch.Tensor | None:
        with self._lock:
            hooks = [Hook(module, _look) for module in self.attention]
            token = _peeking.set(True)
            try:
                args, kwargs = _copied(args, kwargs)
                with p.nested(Decision.COMPUTE):
                    self.block.forward(*args, **kwargs)  # not the call: that may be compiled, and is not left halfway
            except _Enough as enough:
                return enough.seen
            finally:
                _peeking.reset(token)
                for hook in reversed(hooks):
                    hook.remove()
        self.attention = ()  # none of it runs: the whole block was computed in vain, once
        return None


def _copied(args: Args, kwargs: Mapping[str, Any]) -> tuple[Args, Mapping[str, Any]]:
    """The same call on copies: a module that is run once more than the model wants may write to what it is given."""
    return rebuild((args, dict(kwargs)), own(tensors_of((args, kwargs))))


_peeking: ContextVar[bool] = ContextVar("omnicache_peeking", default=False)


class _Enough(BaseException):
    """Leaves a block once its attention was given its input; no error, so that no block can mistake it for one."""

    def __init__(self, seen: torch.Tensor | None):
        self.seen = seen


def _look(call: Callable[..., Any], args: Args, kwargs: dict[str, Any]) -> Any:
    if not _peeking.get():  # another thread's call of the same module
        return call(*args, **kwargs)
    streams = [t for t in tensors_of((args, kwargs)) if t.is_floating_point()]
    whole = [t for t in streams if t.ndim >= 3] or [t[None] for t in streams if t.ndim == 2]
    raise _Enough(whole[0] if whole else None)
