"""Who calls: the pipelines whose loops a call of the denoiser comes from, read off the stack of Python calls.

Several pipelines may share one denoiser, and each has a scheduler of its own. Nothing that a denoiser is given says which of
them is at work; the frames above the call do. They are only read, and a loop that no pipeline runs is timed without them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

NAMES = ("self", "components")
"""What pipelines call themselves in their own loops; modular pipelines hand their parts around as ``components``."""
_NAMES = frozenset(NAMES)
DEEPEST = 60


def callers(model: nn.Module) -> Iterator[Any]:
    """The pipelines that hold ``model`` and are running above this call, innermost first."""
    return (pipe for pipe, _ in frames(model))


def frames(model: nn.Module) -> Iterator[tuple[Any, Mapping[str, Any]]]:
    """The same with the names that their loops know: ``guidance_scale`` and its like."""
    frame = sys._getframe(1)
    for _ in range(DEEPEST):
        frame = frame.f_back
        if frame is None:
            return
        if _NAMES.isdisjoint(frame.f_code.co_varnames):
            continue
        seen = frame.f_locals
        for name in NAMES:
            found = seen.get(name)
            if found is not None and not isinstance(found, nn.Module) and _leads(found, model):
                yield found, seen


def holds(candidate: Any, model: nn.Module) -> bool:
    """Whether the model, or a compiled form of it, is among an object's parts."""
    parts = getattr(candidate, "__dict__", {}).values()
    return any(part is model or getattr(part, "_orig_mod", None) is model for part in parts if isinstance(part, nn.Module))


def _leads(candidate: Any, model: nn.Module) -> bool:
    """Whether this object has both the model and a scheduler among its parts."""
    scheduler = getattr(candidate, "__dict__", {}).get("scheduler")
    return scheduler is not None and hasattr(scheduler, "set_timesteps") and holds(candidate, model)
