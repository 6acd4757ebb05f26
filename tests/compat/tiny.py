"""Tiny random denoisers of every class of diffusers, and what they are called with.

An entry is a fact about one class: a configuration with two or more blocks that builds in milliseconds, and the arguments of a
call. Nothing is downloaded; weights are drawn anew, gates included, so that every block changes the output.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from tests.tiny import built
from torch import nn

Inputs = dict[str, Any]


class Draw:
    """Random arguments, the same for the same seed."""

    def __init__(self, seed: int = 0):
        self._generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=self._generator)

    def ints(self, high: int, *shape: int) -> torch.Tensor:
        return torch.randint(0, high, shape, generator=self._generator)


@dataclass(frozen=True)
class Tiny:
    """One class of denoisers.

    Attributes:
        config: arguments of the constructor.
        inputs: ``inputs(draw, batch)`` gives the keyword arguments of one call.
        moving: the argument that changes along a run: the latents (a tensor or a list of tensors).
        time: the argument that tells the timestep; its value in ``inputs`` gives its shape and dtype.
        start: its value at the start of a run; it falls to ``start / steps``.
        where: the module that has the class.
    """

    config: Mapping[str, Any]
    inputs: Callable[[Draw, int], Inputs]
    moving: str = "hidden_states"
    time: str = "timestep"
    start: float = 1000.0
    where: str = "diffusers"

    def known(self, name: str) -> bool:
        """Whether the installed diffusers has the class."""
        return hasattr(importlib.import_module(self.where), name)

    def build(self, name: str) -> nn.Module:
        return built(lambda: getattr(importlib.import_module(self.where), name)(**self.config))


DENOISERS: dict[str, Tiny] = {}
"""All entries by the name of the class; the files beside this one fill it."""


def along(tiny: Tiny, steps: int, batch: int = 1, still: bool = False, seed: int = 0) -> list[Inputs]:
    """The arguments of every call of a run: latents that drift smoothly while the time falls, or stand still."""
    given = tiny.inputs(Draw(seed), batch)
    x, noise = given[tiny.moving], tiny.inputs(Draw(seed + 1), batch)[tiny.moving]
    calls = []
    for i in range(steps):
        share = 0.0 if still else i / steps
        moved = [a + share * b for a, b in zip(x, noise, strict=True)] if isinstance(x, list) else x + share * noise
        t = given[tiny.time]
        now = torch.full_like(t, tiny.start * (1 - share)) if isinstance(t, torch.Tensor) else type(t)(tiny.start * (1 - share))
        calls.append({**given, tiny.moving: moved, tiny.time: now})
    return calls
