"""U-Nets: which modules lie below a skip connection."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from omnicache.models.unet_layers import Layers

Named = tuple[str, nn.Module]
Level = tuple[Named, ...]

WAYS = (("down", "up"), ("in", "out"), ("input", "output"), ("encoder", "decoder"))
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
MIDDLES = frozenset(("mid", "middle"))


@dataclass(frozen=True)
class Layer:
    """Modules of one level that run one after the other, and whose last one's output is all that others take of them.

    Attributes:
        level: the number of the level that they belong to.
        parents: numbers of the layers whose outputs they take, the one before and on the way up that at the skip connection; -1
            is what comes before the first.
    """

    modules: tuple[nn.Module, ...]
    level: int
    parents: tuple[int, ...]


@dataclass(frozen=True)
class UNet:
    """The levels of a U-Net in the order of their calls, and in each the modules that the model holds for it.

    The way up takes the skip tensors in reverse: level ``j`` up takes those of level ``len(down) - 1 - j`` down.

    Attributes:
        stem: what lies before the first level and makes its input of the latents, and the first skip tensor.
    """

    down: tuple[Level, ...]
    middle: Level
    up: tuple[Level, ...]
    stem: Level = ()

    @property
    def levels(self) -> tuple[Level, ...]:
        return (*self.down, *((self.middle,) if self.middle else ()), *self.up)

    @property
    def entry(self) -> nn.Module:
        """The module that hidden states enter first."""
        return _called(self.down[0])[0]

    @property
    def encoder(self) -> tuple[nn.Module, ...]:
        """All that lies before the way up, in the order of the calls: with its outputs known, the latents are not read."""
        return tuple(module for level in (self.stem, *self.down, self.middle) for module in _called(level))

    def below(self, branch: int) -> tuple[nn.Module, ...]:
        """Modules that need not run when the way up's value at skip connection ``branch`` is known, level by level.

        Branches are counted from the outermost, by layers where the blocks show theirs and by levels otherwise. The value is what
        the last of these modules to be called gives; it need not be the last of the tuple.
        Empty when there is no such branch or nothing lies below it.
        """
        layers = self._layers()
        if layers is not None:
            return layers.below(branch, _called(self.middle))
        first = len(self.up) - 1 - branch  # the level of the way up that is the first to run
        if branch < 0 or first < 0:
            return ()
        skipped = (*self.down[len(self.down) - first :], self.middle, *self.up[:first])
        return tuple(module for level in skipped for module in _called(level))

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers in the order of their calls: resnets with their attentions, samplers and the middle, where the blocks show
        them, and otherwise whole levels."""
        found = self._layers()
        number = {m: i for i, level in enumerate(self.levels) for _, held in level for m in held.modules()}
        if found is not None:
            downs, ups = found.makers, found.takes
        else:
            downs, ups = ([_called(level) for level in way] for way in (self.down, self.up))
        middle = [_called(self.middle)] if self.middle else []
        made: list[Layer] = []
        for i, modules in enumerate([*downs, *middle, *ups]):
            up = i - len(downs) - len(middle)
            # The way up takes skip tensors in reverse; of layers the last takes what was made before the first.
            skip = len(downs) - 1 - up if up >= 0 else i - 1
            made.append(Layer(tuple(modules), number[modules[0]], tuple(sorted({i - 1, max(skip, -1)}))))
        return tuple(made)

    def _layers(self) -> Layers | None:
        """The finer cut, if every level is one block and the layers of all blocks account for all that there is."""
        if any(len(level) != 1 for level in (*self.down, *self.up)):
            return None
        found = Layers([level[0][1] for level in self.down], [level[0][1] for level in self.up])
        return found if found.complete else None


def find(model: nn.Module) -> UNet | None:
    """The U-Net that ``model`` is, known by two lists whose names differ by the direction only; None if it is none."""
    whole = sum(p.numel() for p in model.parameters())
    for path, holder in _holders(model, ""):
        lists = {name: child for name, child in holder.named_children() if isinstance(child, nn.ModuleList)}
        for name, downs in lists.items():
            for there, back in WAYS:
                partner = lists.get("_".join(back if word == there else word for word in name.split("_")))
                # A level up without one to take skip tensors from would make it something else than a U-Net.
                if partner is None or partner is downs or not 0 < len(partner) <= len(downs):
                    continue
                middle = tuple((f"{path}{n}", c) for n, c in holder.named_children() if MIDDLES & set(n.split("_")))
                down, up = _side(holder, path, there, len(downs)), _side(holder, path, back, len(partner))
                found = UNet(down, middle, up, _stem(holder, path, downs))
                # What encodes a condition may be a small U-Net by itself.
                inside = {p for level in found.levels for _, m in level for p in m.parameters()}
                if 2 * sum(p.numel() for p in inside) >= whole and _called(found.down[0]):
                    return found
    return None


def _holders(module: nn.Module, path: str) -> Iterator[Named]:
    """The module and those inside it that are in no list: what is repeated in a row is no U-Net as a whole."""
    yield path, module
    for name, child in module.named_children():
        if not isinstance(child, nn.ModuleList):
            yield from _holders(child, f"{path}{name}.")


def _side(holder: nn.Module, path: str, way: str, length: int) -> tuple[Level, ...]:
    """Of each level of one way what the holder's lists have for it: blocks, and samplers in a list of the same length."""
    lists = [
        (f"{path}{name}", child)
        for name, child in holder.named_children()
        if isinstance(child, nn.ModuleList) and way in name.split("_") and len(child) == length
    ]
    return tuple(tuple((f"{name}.{i}", child[i]) for name, child in lists) for i in range(length))


def _stem(holder: nn.Module, path: str, downs: nn.ModuleList) -> Level:
    """The modules with convolutions that the holder has before its way down."""
    children = list(holder.named_children())
    before = children[: next(i for i, (_, child) in enumerate(children) if child is downs)]
    return tuple((f"{path}{name}", child) for name, child in before if any(isinstance(m, CONVOLUTIONS) for m in child.modules()))


def _called(level: Level) -> list[nn.Module]:
    """The modules of a level that can be called, in place of containers what these hold."""

    def inside(module: nn.Module) -> Iterator[nn.Module]:
        if type(module).forward is not nn.Module.forward:
            yield module
            return
        for child in module.children():
            yield from inside(child)

    return [module for _, held in level for module in inside(held)]
