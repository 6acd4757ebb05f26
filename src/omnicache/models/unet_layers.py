"""The layers of U-Net blocks: one skip tensor for each, and one for each downsampler."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

Parts = list[nn.Module]


class Layers:
    """The ways of a U-Net cut between the layers of its blocks.

    Every block down makes one skip tensor per resnet and one for its downsampler; the first skip tensor of all is made before the
    first block. Every block up takes one per resnet.
    """

    def __init__(self, downs: Sequence[nn.Module], ups: Sequence[nn.Module]):
        self.blocks = (*downs, *ups)
        # Skip tensors 1, 2, ... and what makes them; in the order of the calls.
        self.makers: list[Parts] = []
        for block in downs:
            self.makers += [*_layers(block), *map(list, _samplers(block))]
        # What takes them; in the order of the calls, so that the last one takes skip tensor 0.
        self.takers: list[tuple[nn.Module, Parts]] = [(block, layer) for block in ups for layer in _layers(block)]

    @property
    def takes(self) -> list[Parts]:
        """What runs at each skip tensor on the way up, with the sampler that follows it."""
        ends = [i + 1 == len(self.takers) or self.takers[i + 1][0] is not block for i, (block, _) in enumerate(self.takers)]
        samplers = (
            [m for s in _samplers(block) for m in s] if end else [] for end, (block, _) in zip(ends, self.takers, strict=True)
        )
        return [[*layer, *more] for (_, layer), more in zip(self.takers, samplers, strict=True)]

    @property
    def complete(self) -> bool:
        """Whether every skip tensor is taken once, and no block has weights that belong to none of its layers and samplers.

        Such weights may make a second stream that passes by the layers.
        """
        return len(self.takers) == len(self.makers) + 1 and all(map(_accounted, self.blocks))

    def below(self, branch: int, middle: Parts) -> tuple[nn.Module, ...]:
        """The modules below skip tensor ``branch`` in the order of their calls; none where there is no such skip tensor."""
        if not 0 <= branch < len(self.makers):
            return ()
        first = len(self.takers) - 1 - branch  # the layer that takes skip tensor `branch`: the first of the way up to run
        skipped = [module for maker in self.makers[branch:] for module in maker] + middle
        for i, (block, layer) in enumerate(self.takers[:first]):
            skipped += layer
            if self.takers[i + 1][0] is not block:
                skipped += [m for s in _samplers(block) for m in s]
        return self._whole_blocks(skipped)

    def _whole_blocks(self, skipped: Parts) -> tuple[nn.Module, ...]:
        """The same with every block whose parts are all in it in place of its parts: one hook for many."""
        inside = set(skipped)
        whole = {part: block for block in self.blocks if inside.issuperset(_parts(block)) for part in _parts(block)}
        return tuple(dict.fromkeys(whole.get(module, module) for module in skipped))


def _samplers(block: nn.Module) -> list[nn.ModuleList]:
    found = (getattr(block, name, None) for name in ("downsamplers", "upsamplers"))
    return [m for m in found if isinstance(m, nn.ModuleList)]


def _layers(block: nn.Module) -> list[Parts]:
    """The modules of a block by layer: what runs for resnet ``i``, its attentions and motion modules with it.

    A list of a multiple of the resnets' number holds as many modules in a row for each resnet.
    """
    resnets, samplers = getattr(block, "resnets", None), _samplers(block)
    if not isinstance(resnets, nn.ModuleList) or not len(resnets):
        return []
    lists = [list(m) for m in block.children() if isinstance(m, nn.ModuleList) and not any(m is s for s in samplers)]
    layers: list[Parts] = [[] for _ in resnets]
    for column in lists:
        each, left = divmod(len(column), len(resnets))
        for i, layer in enumerate(layers):
            layer += [] if left else column[i * each : (i + 1) * each]
    return layers


def _parts(block: nn.Module) -> Parts:
    return [m for layer in _layers(block) for m in layer] + [m for s in _samplers(block) for m in s]


def _accounted(block: nn.Module) -> bool:
    return {p for part in _parts(block) for p in part.parameters()} == set(block.parameters())
