"""What the runtime shows of a module to signals, beside its arguments by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from omnicache.policy import Tensors
from omnicache.runtime.streams import tensors_of

PEEKED = " modulated"
"""Under this name, which no argument can have, ``Probe`` adds what the block handed to its attention,"""
ENTERED = " entered"
"""under this one what the first block was given, under this what a module has returned,"""
RETURNED = " returned"
"""and under this the ``Step`` in progress."""
STEP = " step"


def moving(bound: Mapping[str, Any]) -> Tensors:
    """What can be watched in a model that is not known: its hidden states, or else all streams among its arguments."""
    if isinstance(x := bound.get("hidden_states"), torch.Tensor):
        return (x,)
    found = [t for v in bound.values() for t in tensors_of(v) if t.is_floating_point()]
    rank = 3 if any(t.ndim >= 3 for t in found) else 2
    return tuple(t if rank == 3 else t[None] for t in found if t.ndim >= rank)
