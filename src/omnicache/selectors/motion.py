from __future__ import annotations

from typing import Any

import torch

from omnicache.models.map import Site
from omnicache.policy import Chosen, Rows, Selector, value
from omnicache.runtime.step import Step


@value
class Motion(Selector):
    """Rows that have moved since their block last looked (FastCache): ``||x_i - x_i'||^2``, divided by the largest of the sample,
    above ``threshold``.

    Those of one block are chosen once, by what the block is given. All samples of a batch compute as many rows as the one in which
    most move, the others then further rows that have moved most. Waits for the device once for each block.

    Attributes:
        threshold: below 0 all rows are computed; from 1 on none is.
    """

    threshold: float = 0.1

    mixes = True
    shared = 1

    def init(self) -> Any:
        return {}

    def choose(self, state: Any, site: Site, step: Step, rows: Rows) -> tuple[Chosen | None, Any]:
        x = rows.block if rows.block is not None and rows.block.shape[:2] == rows.x.shape[:2] else rows.x
        n = x.shape[1]
        before = state.get((site.block, n))
        state = {**state, (site.block, n): x.detach().clone()}
        if before is None or before.shape != x.shape:
            count, order = n, torch.arange(n, device=x.device).expand(len(x), n)
        else:
            moved = (x - before).float().square().sum(-1)
            share = moved / moved.amax(1, keepdim=True).clamp_min(1e-30)
            still = share <= self.threshold  # NaN has moved
            count = int((~still).sum(1).amax())
            order = torch.where(moved.isnan(), torch.inf, moved).argsort(dim=1, descending=True, stable=True)
        if rows.together and count < n:
            count, order = n, torch.arange(n, device=x.device).expand(len(x), n)
        if not count:
            return None, state
        index = order[:, :count].sort(1).values + n * torch.arange(len(x), device=x.device)[:, None]
        return Chosen(index), state


__all__ = ["Motion"]
