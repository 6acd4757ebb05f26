"""Sites by what they look along, and by their depth."""

from __future__ import annotations

from typing import Annotated

from omnicache.models.map import ModelMap, Site
from omnicache.policy import Where, value
from omnicache.schema import Choice, Range


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
        inner: set[int] = set()
        for row in _rows(model):
            cut = min(self.edge, len(row) // 3)
            inner.update(row[cut : len(row) - cut])
        return tuple(s for s in model.all if s.layer in inner)


@value
class Within(Where):
    """Sites in blocks ``start`` up to ``stop`` (Python's slice rules), of all blocks or ``of`` each "row" of them by itself.

    Of a U-Net its levels are counted.
    """

    start: int | None = None
    stop: int | None = None
    of: Annotated[str, Choice(("all", "row"))] = "all"

    def select(self, model: ModelMap) -> tuple[Site, ...]:
        rows = _rows(model)
        rows = rows if self.of == "row" else [sorted(layer for row in rows for layer in row)]
        inside = {layer for row in rows for layer in row[self.start : self.stop]}
        return tuple(s for s in model.all if s.layer in inside)


@value
class Text(Where):
    """Feed-forward modules of the text stream of two-stream blocks."""

    def select(self, model: ModelMap) -> tuple[Site, ...]:
        return tuple(s for s in model.sites("mlp") if s.name.endswith("_context"))


def _rows(model: ModelMap) -> list[list[int]]:
    """The numbers of the blocks of each row; of a U-Net those of its levels."""
    rows: dict[str, list[int]] = {}
    for block in model.sites("block"):
        rows.setdefault(block.name.rpartition(".")[0], []).append(block.layer)
    return list(rows.values()) or [list(range(max((s.layers for s in model.all), default=0)))]
