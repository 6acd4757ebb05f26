from __future__ import annotations

from omnicache.models.map import ModelMap, Site
from omnicache.policy import Where, value


@value
class Stack(Where):
    """All blocks as one function. Where other code stands between two blocks the stack is split there, as the run shows.

    Of a U-Net, whose blocks are no row, all that lies below its outermost skip connection: ``Deep(0)``.
    """

    def select(self, model: ModelMap) -> tuple[Site, ...]:
        return model.sites("stack") or model.deep(0)
