from __future__ import annotations

from omnicache.granularity.span import Span
from omnicache.models.map import ModelMap, Site
from omnicache.policy import Where, value


@value
class Layers(Where):
    """Layers from ``start`` up to ``stop`` (Python's slice rules), for plans that decide layer by layer.

    A transformer's layers are its blocks. Those that are picked together are one function with one kept increment, so that
    reusing all of them costs what reusing the stack costs, and reusing some of them in a row hardly more.
    A U-Net's are the resnets with the attentions that follow them, the samplers and the middle, each with a kept output.
    """

    start: int | None = None
    stop: int | None = None

    @property
    def called(self) -> str:  # type: ignore[override]
        first, last = self.start or 0, self.stop or 0
        return f"layers between the first {first} and the last {-last}" if first > 0 > last else ""

    def select(self, model: ModelMap) -> tuple[Site, ...]:
        if model.sites("block"):
            return Span(self.start, self.stop).select(model)
        return model.sites("layer")[self.start : self.stop]
