from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from omnicache.policy import value
from omnicache.signals.change import Change, Norm


@value
class TimeChange(Change):
    """Change of the embedded time that the first block is given, the same for all inputs (TeaCache on CogVideoX and Wan)."""

    norm: Norm = "l1"
    at = "stack"

    def probe(self, module: Any, bound: Mapping[str, Any]) -> torch.Tensor | None:
        return next((v for n in ("temb", "timestep_proj", "emb") if isinstance(v := bound.get(n), torch.Tensor)), None)
