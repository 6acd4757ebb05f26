from __future__ import annotations

from omnicache.models.map import ModelMap, Site
from omnicache.policy import Where, value


@value
class Attention(Where):
    """Every attention module: self, joint, temporal, cross. The value is its output, before the block's gate."""

    def select(self, model: ModelMap) -> tuple[Site, ...]:
        return model.sites("attention") + model.sites("cross_attention")


@value
class CrossAttention(Where):
    """The attention modules that look at another sequence (text, image conditions)."""

    called = "cross-attention"

    def select(self, model: ModelMap) -> tuple[Site, ...]:
        return model.sites("cross_attention")
