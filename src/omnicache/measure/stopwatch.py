"""Seconds spent inside a denoiser, whatever is or is not cached in it."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

from torch import nn

from omnicache.now import now
from omnicache.runtime.hook import Hook


class Stopwatch:
    """Adds up the time of every call of ``modules``, none inside another, while it is open. Enter it after caching was enabled,
    leave it before.

    On an accelerator each call is waited for, so that its own work is counted and not the queue's.

    Attributes:
        seconds: of all calls together.
        each: of every call, in order.
    """

    def __init__(self, *modules: nn.Module):
        self.modules, self.each = modules, list[float]()
        self._hooks: list[Hook] = []

    def _timed(self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        began = now()
        out = call(*args, **kwargs)
        self.each.append(now() - began)
        return out

    @property
    def seconds(self) -> float:
        return sum(self.each)

    @property
    def calls(self) -> int:
        return len(self.each)

    def __enter__(self) -> Stopwatch:
        self._hooks = [Hook(module, self._timed) for module in self.modules]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
