from __future__ import annotations

import math
from typing import Annotated, Any

import torch

from omnicache.models.map import Site
from omnicache.policy import Columns, Selector, value
from omnicache.runtime.step import Step
from omnicache.schema import Range
from omnicache.selectors.columns import Share, best


@value
class Keys(Selector):
    """Keys that receive most of the attention of a group of queries, and some at random (Chipmunk).

    Attributes:
        top, random: shares of all keys.
        local: the keys of so many groups on either side, and of the group itself, are taken besides; None: no such.
        group: queries that look at the same keys.
        anew: whether keys are chosen at every dense step; if not, those of the first two steps stay.
        seed: of the random ones.
    """

    top: Share = 0.165
    random: Share = 0.0
    local: Annotated[int, Range(0)] | None = None
    group: Annotated[int, Range(1)] = 192
    anew: bool = False
    seed: int = 0

    def suits(self, site: Site) -> bool:
        return site.kind == "attention"

    def init(self) -> Any:
        return {}

    def pick(self, state: Any, site: Site, step: Step, columns: Columns) -> tuple[torch.Tensor | None, Any]:
        place = site, columns.place
        known = state.get(place)
        if not columns.dense or (known is not None and not self.anew and step.index > 1):
            return None if known is None else known.long(), state
        score = columns.look()
        always = self._always(score, columns)
        chosen = best(
            score.masked_fill(always, math.inf),
            self.top,
            self.random,
            f"{self.seed} {site.name} {step.index}",
            int(always.sum(-1).amax()),
        )
        return chosen, {**state, place: chosen.int()}

    def _always(self, score: torch.Tensor, columns: Columns) -> torch.Tensor:
        """Keys that are taken whatever they receive, ``(groups, total)``."""
        groups, total = score.shape[-2:]
        always = torch.zeros(groups, total, dtype=torch.bool, device=score.device)
        if columns.fixed is not None:
            always |= columns.fixed.to(score.device)
        if self.local is not None:
            rows = torch.arange(groups, device=score.device)[:, None]
            always |= (torch.arange(total, device=score.device) // self.group - rows).abs() <= self.local
        return always
