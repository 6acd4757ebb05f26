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
        turn: ``(units,)``, when it is a unit's turn to stay, of ``turns``; None where nobody must take turns.
        turns: after so many it begins anew.
    """

    number: torch.Tensor
    keepers: int = 1
    turn: torch.Tensor | None = None
    turns: int = 1

    @property
    def units(self) -> int:
        return len(self.number)

    @cached_property
    def staying(self) -> int:
        """How many units stay in all, at the turn at which most do."""
        return max(self.staying_at)

    @cached_property
    def staying_at(self) -> tuple[int, ...]:
        """How many do at each turn."""
        stay = torch.bincount(self.number).clamp_max(self.keepers)
        if self.turn is None:
            return (int(stay.sum()),)
        due = (torch.bincount(self.number[self.turn == turn], minlength=self.count) for turn in range(self.turns))
        return tuple(int(stay.maximum(one).sum()) for one in due)

    def most(self, ratio: float, dropped: int = 0) -> int:
        """``ratio`` of the units as a number, or as many as can go when ``dropped`` are gone: groups at an edge are small."""
        return min(int(ratio * self.units + 1e-9), self.units - dropped - self.staying)

    def drawn(self, luck: torch.Tensor, turn: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """The units that stay, ``(..., staying)``, those whose turn it is and the luckiest of their groups; the others, ascending.

        ``luck`` is ``(..., units)``, numbers all different in a group; units with less than 0 cannot stay, and come last.
        """
        where = self.number.to(luck.device).expand_as(luck)
        stays = torch.zeros_like(luck, dtype=torch.bool)
        if self.turn is not None:
            stays = stays | (self.turn == turn % self.turns).to(luck.device)
            luck = torch.where(stays, luck + self.units, luck)
        left = luck
        for _ in range(self.keepers):
            best = left.new_full((*left.shape[:-1], self.count), -1).scatter_reduce(-1, where, left, "amax")
            won = (left == best.gather(-1, where)) & (left >= 0)
            stays, left = stays | won, torch.where(won, -1, left)
        order = torch.where(stays, 0, torch.where(luck < 0, 2, 1)).argsort(dim=-1, stable=True)
        count = self.staying_at[turn % self.turns]
        return order[..., :count], order[..., count:]

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
        turn: int = 0,
        vote: int = 1,
    ) -> Redundant:
        """Drop ``count`` more units: those most like the destinations of all groups (R0).

        Args:
            features: ``(problems, units, width)``.
            groups: of the units.
            count: at most ``groups.most(...)``.
            lottery: ``(units,)``, numbers all different: in each group the highest are the destinations.
            turn: of the groups; whose turn it is stays.
            vote: so many consecutive parts of the problems drop the same units, by the mean of their similarities.
        """
        if count == 0:
            return self
        problems, device = len(features), features.device
        # Before anything is dropped the same units stay of all problems, which is found on the host.
        drawn = groups.drawn(torch.where(self.dropped, -1, lottery.to(device)) if self.count else lottery, turn)
        target, source = (units.to(device) for units in drawn)
        source = source[..., : source.shape[-1] - self.count]
        alike, which = most_alike(_rows(features, source), _rows(features, target))
        target, source = target.expand(problems, -1), source.expand(problems, -1)
        if vote > 1:
            alike = alike.unflatten(0, (vote, -1)).mean(0).repeat(vote, 1)
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
def grouped(
    height: int,
    width: int,
    side: int,
    depth: int = 1,
    keepers: int = 1,
    turns: int = 1,
    fine: tuple[int, int] | None = None,
) -> Groups:
    """``squares`` of ``depth`` frames as groups. With ``turns``, the units of each group take turns, the same in all frames and, of
    patches of ``fine`` (height, width), after they were joined."""
    number = squares(height, width, side, depth, depth)
    if turns == 1:
        return Groups(number, keepers)
    high, wide = fine or (height, width)
    place = ranks(squares(high, wide, side)).view(high, wide)
    turn = place.repeat(-(-height // high), -(-width // wide))[:height, :width].flatten().repeat(depth)
    return Groups(number, keepers, turn % turns, turns)


@constant
def in_rows(units: int, size: int, turns: int = 1) -> Groups:
    """Neighbours by ``size``."""
    number = torch.arange(units, device="cpu") // size
    return Groups(number) if turns == 1 else Groups(number, 1, ranks(number) % turns, turns)


def ranks(number: torch.Tensor) -> torch.Tensor:
    """The place of each unit in its group, from 0 on."""
    order = number.argsort(stable=True)
    sizes = torch.bincount(number)
    return torch.empty_like(order).scatter(
        0, order, torch.arange(len(order), device="cpu") - (sizes.cumsum(0) - sizes)[number[order]]
    )


@constant
def tiles(height: int, width: int, number: int, depth: int = 1) -> torch.Tensor:
    """Cells of ``depth`` grids by ``number x number`` patches, ``(number ** 2, depth * cells of a patch)``."""
    cells = torch.arange(height * width, device="cpu").view(number, height // number, number, width // number)
    of_one = cells.transpose(1, 2).reshape(number**2, -1)
    return torch.cat([of_one + frame * height * width for frame in range(depth)], dim=1)


def fitting(height: int, width: int, number: int, side: int, ratio: float = 0.0) -> int:
    """The most patches per side, up to ``number``, into which a grid divides, each with four groups or more to choose among, and
    with nearly ``ratio`` of its cells to drop: of sixteen cells 0.05 is none."""

    def fits(n: int) -> bool:
        wanted = ratio * (height // n) * (width // n)
        return not (height % n or width % n or min(height, width) // n < 2 * side) and int(wanted + 1e-9) >= NEARLY * wanted

    return next((n for n in range(number, 1, -1) if fits(n)), 1)
