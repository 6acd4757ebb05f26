from __future__ import annotations

from typing import Annotated, Any

import torch

from omnicache.models.map import Site
from omnicache.policy import Columns, Selector, value
from omnicache.runtime.step import Step
from omnicache.schema import Range
from omnicache.selectors.columns import Share, best


@value
class Neurons(Selector):
    """Neurons of an MLP whose input has changed most since they were last computed, and some at random (Chipmunk).

    Each group of rows has its own. What changes is told by the mean row of the group, before the activation.

    Attributes:
        top, random: shares of all neurons.
        group: rows that are computed alike.
        settled, every: from step ``settled`` on, what was chosen is kept but at every so many steps.
        seed: of the random ones.
    """

    top: Share = 0.3
    random: Share = 0.05
    group: Annotated[int, Range(1)] = 128
    settled: Annotated[int, Range(0)] = 10
    every: Annotated[int, Range(1)] = 2
    seed: int = 0

    def suits(self, site: Site) -> bool:
        return site.kind == "mlp"

    def init(self) -> Any:
        return {}

    def pick(self, state: Any, site: Site, step: Step, columns: Columns) -> tuple[torch.Tensor | None, Any]:
        place = site, columns.place
        means, chosen = state.get(place, (None, None))
        if columns.dense:
            return None, {**state, place: (columns.look(), chosen)}
        if means is None:
            return None, state
        if chosen is None or step.index < self.settled or step.index % self.every == 0:
            now = columns.look()
            change = (now.float() - means.float()).abs().sum(-1)
            chosen = best(change, self.top, self.random, f"{self.seed} {site.name} {step.index}")
            at = chosen[..., None].expand(*chosen.shape, now.shape[-1])
            means = means.scatter(2, at, now.gather(2, at))
        return chosen, {**state, place: (means, chosen)}
