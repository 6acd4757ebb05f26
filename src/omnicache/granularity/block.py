from __future__ import annotations

from omnicache.models.map import ModelMap, Site
from omnicache.policy import Where, value


@value
class Blocks(Where):
    """Every block by itself, or those from ``start`` up to ``stop`` (Python's slice rules)."""

    start: int | None = None
    stop: int | None = None

    def select(self, model: ModelMap) -> tuple[Site, ...]:
        return model.sites("block")[self.start : self.stop]


@value
class Block(Where):
    """One block; negative numbers count from the end."""

    index: int

    def select(self, model: ModelMap) -> tuple[Site, ...]:
        blocks = model.sites("block")
        return (blocks[self.index],) if -len(blocks) <= self.index < len(blocks) else ()
