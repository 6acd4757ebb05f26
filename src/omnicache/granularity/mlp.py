from __future__ import annotations

from omnicache.models.map import ModelMap, Site
from omnicache.policy import Where, value


@value
class MLP(Where):
    """The feed-forward module of every block. The value is its output, before the block's gate."""

    def select(self, model: ModelMap) -> tuple[Site, ...]:
        return model.sites("mlp")
