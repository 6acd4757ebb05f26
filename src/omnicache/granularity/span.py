from __future__ import annotations

from dataclasses import replace

from omnicache.models.map import ModelMap, Site
from omnicache.policy import Where, value


@value
class Span(Where):
    """Blocks from ``start`` up to ``stop`` as one function with one kept increment.

    Each end by itself, as in Python's slices: a whole number counts blocks, a fraction between -1 and 1 is a share of them, and
    negative ones count from the end. Shares are rounded, and as far from the end as from the beginning: a quarter and the
    last quarter have as many blocks.
    """

    start: int | float | None = None
    stop: int | float | None = None

    called = "row of blocks"

    def select(self, model: ModelMap) -> tuple[Site, ...]:
        blocks = model.sites("block")
        picked = blocks[_place(self.start, len(blocks)) : _place(self.stop, len(blocks))]
        if len(picked) < 2:
            return picked
        if picked == blocks:
            return model.sites("stack")
        name = f"{picked[0].name}..{picked[-1].name}"
        return (replace(picked[0], name=name, modules=tuple(m for site in picked for m in site.modules)),)


def _place(end: int | float | None, count: int) -> int | None:
    if not isinstance(end, float):
        return end
    blocks = int(abs(end) * count + 0.5)
    return blocks if end >= 0 else count - blocks
