from __future__ import annotations

from omnicache.models.map import ModelMap, Site
from omnicache.policy import Where, value


@value
class Denoiser(Where):
    """The whole model as one function: nothing of it runs on a reuse step."""

    def select(self, model: ModelMap) -> tuple[Site, ...]:
        return model.sites("denoiser")
