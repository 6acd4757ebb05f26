from __future__ import annotations

from omnicache.models.map import ModelMap, Site
from omnicache.policy import Where, value


@value
class Encoder(Where):
    """All of a U-Net that lies before its way up: what takes the latents in, the way down and the middle, each kept whole with the
    skip tensors that it makes (FasterDiffusion).

    A reuse step runs the way up alone, with its own time, and does not read the latents.
    """

    def select(self, model: ModelMap) -> tuple[Site, ...]:
        return model.sites("encoder")
