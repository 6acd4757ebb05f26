"""Which of several units are nearly the same as others: bipartite matching with one destination in each group.

Source: ToMeSD (arXiv 2303.17604), and the multidimensional OmniCache, which drops where that averages (rules R0 and R5).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, wraps
from typing import Any

import torch

from omnicache.errors import OmniCacheError
from omnicache.kernels import most_alike

NEARLY = 0.9
"""The share of a ratio that patches must be able to drop."""


def constant(make: Callable[..., Any]) -> Callable[..., Any]:
    """Tables of indices that depend on sizes only: made once, on the host, and never written to."""
    known = lru_cache(256)(make)

    @wraps(make)
    def given(*key: Any) -> Any:
        if torch._C._len_torch_dispatch_stack() or torch.compiler.is_compiling():
            return make(*key)  # what a mode or a compiler makes of it is not for others
        with torch.inference_mode(False):  # a gradient may need what was first made without
            return known(*key)

    return given


@dataclass(frozen=True, eq=False)
class Groups:
    """Units in groups, of each of which some always stay. Made on the host, so that no device is waited for.

    Attributes:
        number: ``(units,)``, the group of each unit, from 0 on.
        keepers: how many of each group stay.
    """

    number: torch.Tensor
    keepers: int = 1

    @property
    def units(self) -> int:
        return len(self.number)

    @cached_property
    def staying(self) -> int:
        """How many units stay in all."""
        return int(torch.bincount(self.number).clamp_max(self.keepers).sum())

    def most(self, ratio: float, dropped: int = 0) -> int:
        """``ratio`` of the units as a number, or as many as can go when ``dropped`` are gone: groups at an edge are small."""
        return min(int(ratio * self.units + 1e-9), self.units - dropped - self.staying)

    def drawn(self, luck: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The units that stay, the luckiest of their groups, ``(..., staying)``, and the others, ascending.

        ``luck`` is ``(..., units)``, numbers all different in a group; units with less than 0 cannot stay, and come last.
        """
        where = self.number.to(luck.device).expand_as(luck)
        left, stays = luck, torch.zeros_like(luck, dtype=torch.bool)
        for _ in range(self.keepers):
            best = left.new_full((*left.shape[:-1], self.count), -1).scatter_reduce(-1, where, left, "amax")
            won = (left == best.gather(-1, where)) & (left >= 0)
            stays, left = stays | won, torch.where(won, -1, left)
        order = torch.where(stays, 0, torch.where(luck < 0, 2, 1)).argsort(dim=-1, stable=True)
        return order[..., : self.staying], order[..., self.staying :]

    @cached_property
    def count(self) -> int:
        """How many groups there are."""
        return int(self.number.max()) + 1


def refuse(what: str, ratio: float, most: float, why: str) -> None:
    """Raises:
    OmniCacheError: ``ratio`` is more than can ever be dropped.
    """
    if ratio > most + 1e-9:
        raise OmniCacheError(f"A ratio of {ratio:g} of {what} cannot be dropped: {why}, so it is at most {most:.2f}.")


@dataclass
class Redundant:
    """What was found redundant so far.

    Attributes:
        dropped: ``(problems, units)``: need not be computed.
        match: ``(problems, units)``: for each of those the unit that it is most like; the others are their own. None where nobody
            asks.
        count: how many of each problem are dropped.
    """

    dropped: torch.Tensor
    match: torch.Tensor | None
    count: int = 0

    @classmethod
    def none(cls, problems: int, units: int, device: torch.device, matched: bool) -> Redundant:
        own = torch.arange(units, device=device).expand(problems, -1) if matched else None
        return cls(torch.zeros(problems, units, dtype=torch.bool, device=device), own)

    @property
    def kept(self) -> torch.Tensor:
        """The units that stay, ``(problems, units - count)``, ascending."""
        return self.dropped.to(torch.int8).argsort(dim=1, stable=True)[:, : self.dropped.shape[1] - self.count]

    def drop(
        self,
        features: torch.Tensor,
        groups: Groups,
        count: int,
        lottery: torch.Tensor,
        stay: torch.Tensor | None = None,
        vote: int = 1,
    ) -> Redundant:
        """Drop ``count`` more units: those most like the destinations of all groups (R0).

        Args:
            features: ``(problems, units, width)``.
            groups: of the units.
            count: at most ``groups.most(...)``.
            lottery: ``(units,)``, numbers all different: in each group the highest are the destinations.
            stay: ``(problems, units)``: these go only when all others are gone.
            vote: so many consecutive parts of the problems drop the same units, by the mean of their similarities.
        """
        if count == 0:
            return self
        problems, device = len(features), features.device
        # Before anything is dropped the same units stay of all problems, which is found on the host.
        drawn = groups.drawn(torch.where(self.dropped, -1, lottery.to(device)) if self.count else lottery)
        target, source = (units.to(device) for units in drawn)
        source = source[..., : source.shape[-1] - self.count]
        alike, which = most_alike(_rows(features, source), _rows(features, target))
        target, source = target.expand(problems, -1), source.expand(problems, -1)
        if vote > 1:
            alike = alike.unflatten(0, (vote, -1)).mean(0).repeat(vote, 1)
        if stay is not None:
            alike = alike.masked_fill(stay.gather(1, source), -torch.inf)
        out = alike.argsort(dim=1, descending=True, stable=True)[:, :count]
        gone = source.gather(1, out)
        match = self.match
        if match is not None:
            match = match.scatter(1, gone, target.gather(1, which).gather(1, out))
            match = match.gather(1, match)  # what an earlier level matched with one of these follows it
        return Redundant(self.dropped.scatter(1, gone, True), match, self.count + count)

    def part(self, units: torch.Tensor) -> Redundant:
        """Patches of the units as problems of their own: ``units`` is ``(patches, size)``. Each patch must hold as many dropped."""
        patches, size = units.shape
        made = Redundant.none(len(self.dropped) * patches, size, units.device, self.match is not None)
        if self.count:
            made = replace(made, dropped=self.dropped[:, units].flatten(0, 1), count=self.count // patches)
        return made

    def whole(self, parts: Redundant, units: torch.Tensor) -> Redundant:
        """The reverse of ``part``, after the parts have dropped more."""
        problems, back = self.dropped.shape[0], units.flatten().argsort()
        dropped, match = parts.dropped.view(problems, -1)[:, back], self.match
        if match is not None and parts.match is not None:
            there = units.repeat(problems, 1).gather(1, parts.match).view(problems, -1)[:, back]
            match = torch.where(self.dropped, match, there)
            match = match.gather(1, match)
        return Redundant(dropped, match, parts.count * len(units))


def _rows(features: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
    """Units ``(which,)`` of all problems, or ``(problems, which)`` of each its own."""
    if which.ndim == 1:
        return features.index_select(1, which)
    return features.gather(1, which[..., None].expand(-1, -1, features.shape[2]))


def draw(seed: int, units: int) -> torch.Tensor:
    """A lottery: every unit another number, always the same ones for the same seed."""
    return torch.randperm(units, generator=torch.Generator("cpu").manual_seed(seed % 2**63), device="cpu")


@constant
def squares(height: int, width: int, side: int, frames: int = 1, depth: int = 1) -> torch.Tensor:
    """Groups of ``side x side`` cells of a grid, ``(frames * height * width,)``, over ``depth`` frames; those at an edge may be
    smaller."""
    rows, columns, times = (torch.arange(n, device="cpu") // by for n, by in ((height, side), (width, side), (frames, depth)))
    wide, high = -(-width // side), -(-height // side)
    return ((times[:, None, None] * high + rows[:, None]) * wide + columns).flatten()


@constant
def grouped(height: int, width: int, side: int, frames: int = 1, depth: int = 1, keepers: int = 1) -> Groups:
    """``squares`` as groups."""
    return Groups(squares(height, width, side, frames, depth), keepers)


@constant
def tiles(height: int, width: int, number: int) -> torch.Tensor:
    """Cells of a grid by ``number x number`` patches, ``(number ** 2, cells of a patch)``."""
    cells = torch.arange(height * width, device="cpu").view(number, height // number, number, width // number)
    return cells.transpose(1, 2).reshape(number**2, -1)


def fitting(height: int, width: int, number: int, side: int, ratio: float = 0.0) -> int:
    """The most patches per side, up to ``number``, into which a grid divides, each with four groups or more to choose among, and
    with nearly ``ratio`` of its cells to drop: of sixteen cells 0.05 is none."""

    def fits(n: int) -> bool:
        wanted = ratio * (height // n) * (width // n)
        return not (height % n or width % n or min(height, width) // n < 2 * side) and int(wanted + 1e-9) >= NEARLY * wanted

    return next((n for n in range(number, 1, -1) if fits(n)), 1)
