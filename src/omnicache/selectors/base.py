from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Annotated, Any

import torch

from omnicache.models.grid import Grid
from omnicache.models.map import Site
from omnicache.policy import Chosen, Rows, Selector, value
from omnicache.runtime.step import Step
from omnicache.schema import Choice, Range
from omnicache.selectors.matching import Groups, Redundant, draw, fitting, grouped, refuse, tiles

Ratio = Annotated[float, Range(0, 1)]
Box = tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]


@value
class Redundancy(Selector):
    """Base of the selectors of the multidimensional OmniCache: drop what is nearly the same as something that stays (rule R0).

    What stays is a box of rows, ``(batch, frames, cells)``, which becomes sequences along space or time, as the site has them.

    Attributes:
        ratio: share of all units to drop.
        side: units are compared with one of each group of ``side x side`` cells, which stays.
        patches: patches per side within which units are compared (rule R5); where a grid does not divide so, or its patches would
            be too small to drop the ratio, the most that do.
        hierarchy: further shares, each of all units, dropped after patches were joined by twos in each direction.
        redraw: whether the lottery of what stays is drawn anew at every step; if not, what looks redundant is never refreshed.
        aligned: whether guidance branches drop the same units: the halves of a batch vote, and of two calls the second follows.
        max_age: no unit is dropped for more than so many steps in a row: the units of a group take turns. None for no limit.
        stand_in: what fills in for a dropped unit of which no value is kept: the one that it matched ("match"), those that it lies
            between ("between"), or nothing ("none"): then it is computed.
        merge: whether a unit that stays is the mean of all that it stands for, as in ToMeSD.
        shared: so many blocks in a row drop the same units, found by what the first of them is given.
        seed: of the lottery.
    """

    ratio: Ratio = 0.4
    side: Annotated[int, Range(1)] = 2
    patches: Annotated[int, Range(1)] = 1
    hierarchy: tuple[Ratio, ...] = ()
    redraw: bool = True
    aligned: bool = True
    max_age: Annotated[int, Range(1)] | None = None
    stand_in: Annotated[str, Choice(("none", "match", "between"))] = "none"
    merge: bool = False
    shared: Annotated[int, Range(1)] = 1
    seed: int = 0

    mixes = True
    needs_grid = True

    @property
    def fills(self) -> bool:
        return self.stand_in != "none"

    def __post_init__(self) -> None:
        self.refuse("all units", self.ratio + sum(self.hierarchy), self.side**2)

    def refuse(self, what: str, ratio: float, size: int) -> None:
        """Raises:
        OmniCacheError: more than can be dropped of groups of such a size.
        """
        stay = self.stays(size)
        often = f", so that none is dropped more than {self.max_age} times in a row" if stay > 1 else ""
        refuse(what, ratio, 1 - stay / size, f"{f'{stay} of each {size} stay' if stay > 1 else f'one of each {size} stays'}{often}")

    def stays(self, size: int) -> int:
        """How many of a group of such a size stay, so that one always does, and each in its turn."""
        return 1 if self.max_age is None else -(-size // self.turns)

    @property
    def turns(self) -> int:
        return 1 if self.max_age is None else self.max_age + 1

    def suits(self, site: Site) -> bool:
        """Not attention that norms over all of a picture first, as in U-Nets of pixels."""
        return getattr(site.modules[0], "group_norm", None) is None

    def init(self) -> Any:
        return {}

    def find(self, look: Look) -> Box:
        """What stays, from the features: rows ``(batch, frames', cells')``; for each row of the film those that stand for it,
        ``(batch, frames, cells, m)``, if any do; and their weights, None for one."""
        raise NotImplementedError

    def choose(self, state: Any, site: Site, step: Step, rows: Rows) -> tuple[Chosen | None, Any]:
        grid, seen = rows.grid, rows.block if rows.block is not None else rows.x
        assert grid is not None
        film = (rows.block_grid or grid).film(seen).flatten(2, 3)
        ids = torch.arange(grid.entries * grid.rows, device=film.device).view(grid.entries, grid.rows)
        turn = state.get(site.name, 0)
        look = Look(film, grid.film(ids).flatten(2, 3), grid, site, self._draw(site, step), turn, rows.together)
        kept, stand, weights = self.find(look)
        state = state if self.max_age is None else {**state, site.name: turn + 1}
        index = {"space": kept, "time": kept.transpose(1, 2), "film": kept.flatten(1, 2)[:, None]}[grid.along].flatten(0, 1)
        if grid.before:
            index = torch.cat((ids[index[:, 0] // grid.rows, : grid.before], index), dim=1)
        if stand is None:
            return Chosen(index, note=look.note), state
        every = ids.flatten()[:, None].repeat(1, stand.shape[-1])
        every[look.ids.flatten()] = stand.flatten(0, 2)
        shares = None
        if weights is not None:
            shares = torch.zeros_like(every, dtype=torch.float32)
            shares[:, 0] = 1.0
            shares[look.ids.flatten()] = weights.flatten(0, 2)
        return Chosen(index, every, shares, self.merge, note=look.note), state

    def _draw(self, site: Site, step: Step) -> Callable[[int], torch.Tensor]:
        place = zlib.crc32(f"{self.seed} {site.layer} {step.index if self.redraw else 0}".encode())
        return lambda units: draw(place, units)

    def levels(self, height: int, width: int, of: float = 0.0) -> list[tuple[int, float]]:
        """Patches per side and the share to drop, level by level; ``of`` is the share of its cells that a patch must be able to
        drop."""
        number = fitting(height, width, self.patches, self.side, of)
        return [(max(number >> i, 1), ratio) for i, ratio in enumerate((self.ratio, *self.hierarchy))]

    def groups(self, height: int, width: int, number: int, depth: int = 1, keepers: int = 1) -> Groups:
        """Groups of a patch, of ``number`` patches per side of a grid; the units of a group take turns as at the first level."""
        finest = self.levels(height, width, self.ratio)[0][0]
        fine = (height // finest, width // finest) if self.turns > 1 else None
        return grouped(height // number, width // number, self.side, depth, keepers, self.turns, fine)

    def cells(self, look: Look, features: torch.Tensor, depth: int = 1) -> Redundant:
        """Cells of ``depth`` grids dropped level by level, of features ``(problems, depth * cells, width)``."""
        height, width = look.grid.height, look.grid.width
        found = Redundant.none(features.shape[0], features.shape[1], features.device, self.fills)
        for number, ratio in self.levels(height, width, self.ratio):
            groups = self.groups(height, width, number, depth)
            cut = tiles(height, width, number, depth).to(features.device)
            part = found.part(cut)
            part = part.drop(
                features[:, cut].flatten(0, 1),
                groups,
                groups.most(ratio, part.count),
                look.lottery(groups.units),
                look.turn,
                look.votes(len(features), self.aligned),
            )
            found = found.whole(part, cut)
        return found

    def stands(self, ids: torch.Tensor, found: Redundant, number: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """What stands for each of the units ``ids``, ``(batch, problems, units)``, of which ``found`` tells in groups ``number``:
        ``(batch, problems, units, m)`` of those, and weights if there are more than one."""
        if found.match is None:
            return None, None
        if self.stand_in != "between":
            return ids.gather(2, found.match.view_as(ids))[..., None], None
        members, weights = between(number, found.dropped)
        size = (*ids.shape, members.shape[-1])
        return ids.gather(2, members.reshape(*ids.shape[:2], -1)).view(size), weights.view(size)


def between(number: torch.Tensor, dropped: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """For each unit all of its group, ``(problems, units, m)``, and weights: the mean of those that stay."""
    size = torch.bincount(number)
    order, first = number.argsort(stable=True), (size.cumsum(0) - size)[number]
    places = torch.arange(int(size.max()))
    inside = places < size[number][:, None]
    members = order[(first[:, None] + places).clamp_max(len(order) - 1)].to(dropped.device).expand(len(dropped), -1, -1)
    stays = ~dropped.gather(1, members.flatten(1)).view_as(members) & inside.to(dropped.device)
    own = torch.arange(members.shape[1], device=dropped.device)[:, None] == members
    mean = stays / stays.sum(-1, keepdim=True).clamp_min(1)
    return members, torch.where(dropped[..., None], mean, own.to(mean.dtype))


class Look:
    """What a selector sees at one site.

    Attributes:
        film: features, ``(batch, frames, cells, width)``.
        ids: the rows at those places, ``(batch, frames, cells)``.
        lottery: numbers for so many units: the highest stay.
        turn: how often the site was looked at before.
        together: whether all sequences must keep the same places.
        note: what a selector could not do here, as a sentence; it may be written to.
    """

    def __init__(
        self,
        film: torch.Tensor,
        ids: torch.Tensor,
        grid: Grid,
        site: Site,
        lottery: Callable[[int], torch.Tensor],
        turn: int,
        together: bool,
    ):
        self.film, self.ids, self.grid, self.site, self.lottery = film, ids, grid, site, lottery
        self.turn, self.together, self.note = turn, together, ""

    def votes(self, problems: int, aligned: bool) -> int:
        """How many parts of so many problems, which are sorted by the batch first, must drop the same."""
        if self.together:  # of a film in one sequence each frame has a part of the table to itself
            return self.grid.batch if self.grid.along == "film" else problems
        return 2 if aligned and self.grid.guided and problems % 2 == 0 else 1


__all__ = ["Box", "Look", "Ratio", "Redundancy"]
