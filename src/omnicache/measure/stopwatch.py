"""Seconds spent inside a denoiser, whatever is or is not cached in it."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import torch
from torch import nn

from omnicache.runtime.hook import Hook


class Stopwatch:
    """Adds up the time of every call of ``module`` while it is open. Enter it after caching was enabled, leave it before.

    On a GPU each call is waited for, so that its own work is counted and not the queue's.

    Attributes:
        seconds: of all calls together.
        each: of every call, in order.
    """

    def __init__(self, module: nn.Module):
        self.module, self.each = module, list[float]()
        self._hook: Hook | None = None
        self._cuda = any(p.is_cuda for p in module.parameters())

    def _timed(self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._cuda:
            torch.cuda.synchronize()
        began = time.perf_counter()
        out = call(*args, **kwargs)
        if self._cuda:
            torch.cuda.synchronize()
        self.each.append(time.perf_counter() - began)
        return out

    @property
    def seconds(self) -> float:
        return sum(self.each)

    @property
    def calls(self) -> int:
        return len(self.each)

    def __enter__(self) -> Stopwatch:
        self._hook = Hook(self.module, self._timed)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        if self._hook is not None:
            self._hook.remove()
