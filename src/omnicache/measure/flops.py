"""Floating-point work of a denoiser, counted operation by operation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from omnicache.runtime.hook import Hook


def denoiser_flops(module: nn.Module, run: Callable[[], Any]) -> int:
    """Multiply-adds times two that ``run()`` spends inside ``module``: matrix products, convolutions and attention.

    Element-wise work is not counted, so a wholly reused step counts next to nothing; its time is measured apart. Call it after
    caching was enabled: rehearsals and checks are inside the module and count.
    """
    total = 0

    def counted(call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        nonlocal total
        with FlopCounterMode(display=False) as counter:
            out = call(*args, **kwargs)
        total += counter.get_total_flops()
        return out

    hook = Hook(module, counted)
    try:
        run()
    finally:
        hook.remove()
    return total
