"""A model seen as places where one function may be replaced."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import nn


@dataclass(frozen=True)
class Site:
    """A place in a model where a computed value can be kept and an estimate put in.

    Attributes:
        name: path of the (first) module, for people.
        kind: "denoiser", "stack", "block", "attention", "cross_attention", "mlp", "layer" (of a U-Net), "encoder"
            (a part of one), "deep" or "guidance".
        modules: the modules it consists of, in the order of their calls.
        layout: "whole" (one module), "chain" (blocks that hand a stream on; the run shows where it is unbroken), "region"
            (modules of which all but the last are passed over when the last one's output is estimated), or, of guidance, the
            branch that runs in any case: "conditional" or "unconditional".
        layer: number of the block it belongs to, or -1.
        layers: number of blocks of the model.
    """

    name: str
    kind: str
    modules: tuple[nn.Module, ...] = field(repr=False)
    layout: str = "whole"
    layer: int = -1
    layers: int = 0

    @property
    def block(self) -> str:
        """The path of the block that a sub-layer belongs to."""
        return self.name.rpartition(".")[0]

    @property
    def temporal(self) -> bool:
        """Whether it looks along time: told by the names around it, as diffusers' models have them."""
        return "temp" in self.name or "motion" in self.name

    def __hash__(self) -> int:
        return hash((self.name, self.kind))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Site) and (self.name, self.kind, self.modules) == (other.name, other.kind, other.modules)


@dataclass(frozen=True)
class ModelMap:
    """All sites of a model.

    Attributes:
        model: the denoiser.
        family: "transformer" (blocks in a row), "unet", or "none" (no block was found).
        all: every site except deep ones, in the order of the modules.
        entries: the modules that hidden states enter first: the first block of every row, in the order of the modules.
        deep_region: gives the modules below a skip connection (U-Nets).
        parents: for every site of kind "layer" the numbers of those whose outputs it takes; -1 is what comes before the first.
    """

    model: nn.Module
    family: str
    all: tuple[Site, ...]
    entries: tuple[nn.Module, ...] = ()
    deep_region: Callable[[int], tuple[nn.Module, ...]] | None = None
    parents: tuple[tuple[int, ...], ...] = ()

    def sites(self, kind: str) -> tuple[Site, ...]:
        return tuple(s for s in self.all if s.kind == kind)

    def guidance(self, runs: str) -> Site:
        """From what the branch of guidance ``runs`` returns to what the other one does."""
        return Site(type(self.model).__name__, "guidance", (self.model,), runs)

    def deep(self, branch: int) -> tuple[Site, ...]:
        """The deep site below skip connection ``branch``; none where the model is no U-Net or has no such branch."""
        modules = self.deep_region(branch) if self.deep_region is not None else ()
        return (Site(f"deep[{branch}]", "deep", modules, "region"),) if modules else ()
