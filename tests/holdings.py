"""What a cache really holds, found by the garbage collector's means and not by the library's own."""

from __future__ import annotations

import gc
import types
from typing import Any, TypeVar

from torch import nn

from omnicache.runtime.trace import Record, Trace
from omnicache.weights import Weights

NOT_OURS = (nn.Module, type, types.ModuleType, types.FunctionType, types.FrameType, Trace, Record, Weights)
"""The last: fitted tensors belong to the plan, whether anything runs or not."""
Found = TypeVar("Found")


def reach(root: Any, wanted: type[Found]) -> list[Found]:
    """All objects of a type that can be reached from ``root``."""
    seen: set[int] = set()
    found: list[Found] = []
    todo = [root]
    while todo:
        part = todo.pop()
        if id(part) in seen or isinstance(part, NOT_OURS):
            continue
        seen.add(id(part))
        if isinstance(part, wanted):
            found.append(part)
        else:
            todo += gc.get_referents(part)
    return found


def kept(run: Any) -> list[Any]:
    """All that the runs in progress keep."""
    runs = (r for s in run.sessions for r in s.runs)
    return [
        (list(r.branches.values()), [t.state for t in r.triggers.values()], r.agreed, list(r.correctors.values())) for r in runs
    ]
