"""Sites by what they look along, and by their depth."""

from __future__ import annotations

from typing import Annotated

from omnicache.models.map import ModelMap, Site
from omnicache.policy import Where, value
from omnicache.schema import Range


@value
class Temporal(Where):
    """Attention and feed-forward modules that look along time, in models where those are apart (Latte, SVD)."""

    def select(self, model: ModelMap) -> tuple[Site, ...]:
        return tuple(s for s in model.all if s.temporal and s.kind in ("attention", "cross_attention", "mlp"))


@value
class Inner(Where):
    """Sites without those of the first and the last ``edge`` blocks of each row, at either end at most a third of them."""

    edge: Annotated[int, Range(0)] = 4

    def select(self, model: ModelMap) -> tuple[Site, ...]:
        rows: dict[str, list[int]] = {}
        for block in model.sites("block"):
            rows.setdefault(block.name.rpartition(".")[0], []).append(block.layer)
        inner: set[int] = set()
        for row in rows.values() or [list(range(max((s.layers for s in model.all), default=0)))]:
            cut = min(self.edge, len(row) // 3)
            inner.update(row[cut : len(row) - cut])
        return tuple(s for s in model.all if s.layer in inner)


@value
class Text(Where):
    """Feed-forward modules of the text stream of two-stream blocks."""

    def select(self, model: ModelMap) -> tuple[Site, ...]:
        return tuple(s for s in model.sites("mlp") if s.name.endswith("_context"))
