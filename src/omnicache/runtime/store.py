"""What is kept, and how much: values owned by the cache, counted by the byte."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch

from omnicache.policy import History, Tensors


def own(tensors: Tensors) -> Tensors:
    """Copies with storage of their own: the model may write to its tensors, and a view would keep all it looks into.

    Dense tensors keep their strides, so that convolutions find the memory format they had, and the same rounding.
    """
    return tuple(t.detach().clone() for t in tensors)


def versions(tensors: Tensors) -> tuple[int, ...]:
    """Counters that rise when a tensor is written to; inference tensors have none."""
    return tuple(-1 if t.is_inference() else t._version for t in tensors)


class Lent:
    """Watches kept tensors that were handed out: if the model writes to one, the cache must not use it again.

    Inference tensors count no versions, so copies of them are handed out instead.
    """

    __slots__ = ("_versions", "always_copy")

    def __init__(self) -> None:
        self.always_copy = False
        self._versions: list[tuple[torch.Tensor, int]] = []

    def lend(self, history: History, tensors: Tensors) -> Tensors:
        kept = {id(t) for entry in history for t in entry.tensors}
        out = []
        self._versions = []
        for t in tensors:
            if id(t) not in kept:
                out.append(t)
            elif self.always_copy or t.is_inference():
                out.append(t.clone())
            else:
                self._versions.append((t, t._version))
                out.append(t)
        return tuple(out)

    def watch(self, tensors: Tensors) -> None:
        """Watch these from now on, as if they had been lent."""
        self._versions = [(t, t._version) for t in tensors if not t.is_inference()]

    def forget(self, but: History = ()) -> None:
        """What was lent is no longer kept, except for these entries: watching it would only hold its memory."""
        kept = {id(t) for entry in but for t in entry.tensors}
        self._versions = [(t, v) for t, v in self._versions if id(t) in kept]

    def spoiled(self) -> bool:
        """True once after something lent was written to; from then on copies are lent."""
        if all(t._version == v for t, v in self._versions):
            return False
        self.always_copy, self._versions = True, []
        return True


def held_bytes(*kept: Any, host: bool = True) -> int:
    """Bytes of the distinct tensor storages reachable through tuples, lists, mappings and dataclasses; without those of the host's
    memory if ``host`` is false."""
    seen: dict[int, int] = {}

    def walk(part: Any) -> None:
        if isinstance(part, torch.Tensor):
            if host or part.device.type != "cpu":
                storage = part.untyped_storage()
                seen[storage.data_ptr()] = storage.nbytes()
        elif isinstance(part, Mapping):
            for item in part.values():
                walk(item)
        elif is_dataclass(part) and not isinstance(part, type):
            for f in fields(part):
                walk(getattr(part, f.name))
        elif isinstance(part, Iterable) and not isinstance(part, (str, bytes)):
            for item in part:
                walk(item)

    walk(kept)
    return sum(seen.values())
