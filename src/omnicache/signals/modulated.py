from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from omnicache.policy import value
from omnicache.runtime.seen import PEEKED
from omnicache.signals.change import Change, Norm


@value
class ModulatedInputChange(Change):
    """Relative change of the first block's normed and modulated input (TeaCache, arXiv 2411.19108, section 3.2).

    Blocks norm and modulate in many ways, and all hand the result to their attention: that is where it is read (``Probe``).
    """

    norm: Norm = "l1"
    at = "stack"

    def probe(self, module: Any, bound: Mapping[str, Any]) -> torch.Tensor | None:
        return bound.get(PEEKED)
