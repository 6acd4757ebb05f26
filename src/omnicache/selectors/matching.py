"""Which of several units are nearly the same as others: bipartite matching with one destination in each group.

Source: ToMeSD (arXiv 2303.17604), and the multidimensional OmniCache, which drops where that averages (rules R0 and R5).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from omnicache.errors import OmniCacheError
from omnicache.kernels import most_alike


@dataclass(frozen=True)
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

    @property
    def staying(self) -> int:
        """How many units stay in all."""
        return int(torch.bincount(self.number).clamp_max(self.keepers).sum())

    def most(self, ratio: float, dropped: int = 0) -> int:
        """``ratio`` of the units as a number, or as many as can go when ``dropped`` are gone: groups at an edge are small."""
        return min(int(ratio * self.units + 1e-9), self.units - dropped - self.staying)


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
        match: ``(problems, units)``: for each of those the unit that it is most like; the others are their own.
        count: how many of each problem are dropped.
    """

    dropped: torch.Tensor
    match: torch.Tensor
    count: int = 0

    @classmethod
    def none(cls, problems: int, units: int, device: torch.device) -> Redundant:
        own = torch.arange(units, device=device).expand(problems, -1)
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
        problems, units = self.dropped.shape
        device, width = features.device, features.shape[2]
        where = groups.number.to(device).expand(problems, -1)
        luck = torch.where(self.dropped, -1, lottery.to(device))
        there = torch.zeros_like(self.dropped)
        for _ in range(groups.keepers):
            best = luck.new_full((problems, int(groups.number.max()) + 1), -1).scatter_reduce(1, where, luck, "amax")
            won = (luck == best.gather(1, where)) & (luck >= 0)
            there, luck = there | won, torch.where(won, -1, luck)
        role = torch.where(there, 0, torch.where(self.dropped, 2, 1))  # destinations, sources, and what is dropped already
        order = role.argsort(dim=1, stable=True)
        target, source = order[:, : groups.staying], order[:, groups.staying : units - self.count]
        alike, which = most_alike(
            features.gather(1, source[..., None].expand(-1, -1, width)), features.gather(1, target[..., None].expand(-1, -1, width))
        )
        if vote > 1:
            alike = alike.unflatten(0, (vote, -1)).mean(0).repeat(vote, 1)
        if stay is not None:
            alike = alike.masked_fill(stay.gather(1, source), -torch.inf)
        out = alike.argsort(dim=1, descending=True, stable=True)[:, :count]
        gone = source.gather(1, out)
        match = self.match.scatter(1, gone, target.gather(1, which).gather(1, out))
        match = match.gather(1, match)  # what an earlier level matched with one of these follows it
        return Redundant(self.dropped.scatter(1, gone, True), match, self.count + count)

    def part(self, units: torch.Tensor) -> Redundant:
        """Patches of the units as problems of their own: ``units`` is ``(patches, size)``. Each patch must hold as many dropped."""
        patches, size = units.shape
        dropped = self.dropped[:, units].flatten(0, 1)
        return Redundant(dropped, torch.arange(size, device=units.device).expand_as(dropped), self.count // patches)

    def whole(self, parts: Redundant, units: torch.Tensor) -> Redundant:
        """The reverse of ``part``, after the parts have dropped more."""
        patches, _ = units.shape
        problems = self.dropped.shape[0]
        at = units.flatten().expand(problems, -1)
        there = units.repeat(problems, 1).gather(1, parts.match).view(problems, -1)
        dropped = torch.zeros_like(self.dropped).scatter(1, at, parts.dropped.view(problems, -1))
        match = torch.empty_like(self.match).scatter(1, at, there)
        match = torch.where(self.dropped, self.match, match)
        return Redundant(dropped, match.gather(1, match), parts.count * patches)


def draw(seed: int, units: int) -> torch.Tensor:
    """A lottery: every unit another number, always the same ones for the same seed."""
    return torch.randperm(units, generator=torch.Generator().manual_seed(seed % 2**63))


def squares(height: int, width: int, side: int, frames: int = 1, depth: int = 1) -> torch.Tensor:
    """Groups of ``side x side`` cells of a grid, ``(frames * height * width,)``, over ``depth`` frames; those at an edge may be
    smaller."""
    rows, columns, times = torch.arange(height) // side, torch.arange(width) // side, torch.arange(frames) // depth
    wide, high = -(-width // side), -(-height // side)
    return ((times[:, None, None] * high + rows[:, None]) * wide + columns).flatten()


def tiles(height: int, width: int, number: int) -> torch.Tensor:
    """Cells of a grid by ``number x number`` patches, ``(number ** 2, cells of a patch)``."""
    cells = torch.arange(height * width).view(number, height // number, number, width // number)
    return cells.transpose(1, 2).reshape(number**2, -1)


def fitting(height: int, width: int, number: int, side: int) -> int:
    """The most patches per side, up to ``number``, into which a grid divides with whole groups in each."""
    return next((n for n in range(number, 1, -1) if not (height % n or width % n or min(height, width) // n < side)), 1)
