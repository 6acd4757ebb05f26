"""Who else works on this very call: processes that each hold a part of every sequence, and must decide alike.

A rank that computes a block while another reuses it waits for keys and values that nobody sends. So whatever leads to a
decision, and was measured on tensors of which each rank may hold a part, is summed over all of them first.

All ranks must take part in every sum, in the same order, whatever each of them sees: a sum must never stand behind a condition
that could be true on one rank only. A rank that does not know its part says NaN, which then is what all of them read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from omnicache.errors import OmniCacheError


class Ranks:
    """The processes that share a call; only this one without a ``group``, and then nothing is sent and everything is free."""

    __slots__ = ("group",)

    def __init__(self, group: Any = None):
        self.group = group

    def __bool__(self) -> bool:
        return self.group is not None

    def total(self, sums: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Each summed over all ranks, in one message. Stays on the device; NaN on one rank is NaN on all."""
        if self.group is None or not sums:
            return list(sums)
        flat = torch.cat([s.detach().flatten() for s in sums])
        torch.distributed.all_reduce(flat, group=self.group)
        parts = flat.split([s.numel() for s in sums])
        return [part.view_as(s) for part, s in zip(parts, sums, strict=True)]

    def any(self, mine: bool, device: torch.device) -> bool:
        """Whether it is so on any rank. ``device`` is one that the group can send from: that of the model's tensors."""
        if self.group is None:
            return mine
        return bool(self.total([torch.full((1,), float(mine), device=device)])[0])


def ranks_of(model: nn.Module, given: Any = None) -> Ranks:
    """The ranks that a model's sequences are split over: those given, or those of diffusers' context parallelism.

    Raises:
        OmniCacheError: the model is split in a way that cannot be read.
    """
    if given is not None:
        return Ranks(given)
    split = getattr(getattr(model, "_parallel_config", None), "context_parallel_config", None)
    if split is None:
        return Ranks()
    mesh = getattr(split, "_flattened_mesh", None)  # over ring and ulysses; other dimensions of the mesh share no sequence
    if mesh is None:
        raise OmniCacheError(
            f"{type(model).__name__} is split over several processes, and which is not to be seen in this version of diffusers. "
            "Say it: omnicache.enable(pipe, method, group=process_group)."
        )
    return Ranks(mesh.get_group())


def check_group(group: Any) -> None:
    """Refuse what no message can be sent to.

    Raises:
        OmniCacheError: it is no process group, or none that this process belongs to.
    """
    kind = getattr(torch.distributed, "ProcessGroup", None)
    if group is not None and (kind is None or not isinstance(group, kind)):
        raise OmniCacheError(
            "group is a torch.distributed process group that this process belongs to, such as dist.group.WORLD after "
            f"dist.init_process_group(), not {type(group).__name__}."
        )
