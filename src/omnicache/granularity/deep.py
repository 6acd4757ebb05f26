from __future__ import annotations

from omnicache.models.map import ModelMap, Site
from omnicache.policy import Where, value


@value
class Deep(Where):
    """The deep part of a U-Net: everything below skip connection ``branch``, counted from the outermost (DeepCache).

    The value is what the up path hands to the layer at that skip connection, so a reuse step runs the layers above it only.
    """

    branch: int = 0

    def select(self, model: ModelMap) -> tuple[Site, ...]:
        return model.deep(self.branch)
