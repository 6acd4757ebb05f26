from __future__ import annotations

from torch import nn

from omnicache.models.map import ModelMap, Site
from omnicache.policy import Where, value


@value
class Transformers(Where):
    """The attention blocks of a U-Net, each as one function with an input of its own shape (Stable Diffusion's spatial
    transformers); the blocks of a transformer.

    They are the outermost modules with attention inside that are held in a list beside the resnets.
    """

    def select(self, model: ModelMap) -> tuple[Site, ...]:
        if blocks := model.sites("block"):
            return blocks
        found: dict[str, Site] = {}
        for site in model.sites("attention") + model.sites("cross_attention"):
            name = _held(model.model, site.name)
            found[name] = Site(name, "layer", (model.model.get_submodule(name),), "whole", site.layer, site.layers)
        return tuple(sorted(found.values(), key=lambda s: s.layer))


def _held(model: nn.Module, name: str) -> str:
    """The path of the outermost entry of a list of attentions, on the way from a level of a U-Net down to one of its modules."""
    parts = name.split(".")
    for end in range(2, len(parts) + 1):
        holder = model.get_submodule(".".join(parts[: end - 1]))
        beside = model.get_submodule(".".join(parts[: end - 2])) if end > 2 else model
        if isinstance(holder, nn.ModuleList) and hasattr(beside, "resnets") and holder is not beside.resnets:
            return ".".join(parts[:end])
    return name
