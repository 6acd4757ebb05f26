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
from omnicache.selectors.matching import Redundant, draw, fitting, grouped, refuse, squares, tiles

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
        max_age: what was dropped so many steps in a row goes last; None for no limit.
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
        cells = self.side**2
        refuse("all units", self.ratio + sum(self.hierarchy), 1 - 1 / cells, f"one of each {cells} stays")

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
        look = Look(film, grid.film(ids).flatten(2, 3), grid, site, self._draw(site, step), state, rows.together)
        kept, stand, weights = self.find(look)
        index = {"space": kept, "time": kept.transpose(1, 2), "film": kept.flatten(1, 2)[:, None]}[grid.along].flatten(0, 1)
        if grid.before:
            index = torch.cat((ids[index[:, 0] // grid.rows, : grid.before], index), dim=1)
        if stand is None:
            return Chosen(index), look.ages
        every = ids.flatten()[:, None].repeat(1, stand.shape[-1])
        every[look.ids.flatten()] = stand.flatten(0, 2)
        shares = None
        if weights is not None:
            shares = torch.zeros_like(every, dtype=torch.float32)
            shares[:, 0] = 1.0
            shares[look.ids.flatten()] = weights.flatten(0, 2)
        return Chosen(index, every, shares, self.merge), look.ages

    def _draw(self, site: Site, step: Step) -> Callable[[int], torch.Tensor]:
        place = zlib.crc32(f"{self.seed} {site.layer} {step.index if self.redraw else 0}".encode())
        return lambda units: draw(place, units)

    def levels(self, height: int, width: int, of: float = 0.0) -> list[tuple[int, float]]:
        """Patches per side and the share to drop, level by level; ``of`` is the share of its cells that a patch must be able to
        drop."""
        number = fitting(height, width, self.patches, self.side, of)
        return [(max(number >> i, 1), ratio) for i, ratio in enumerate((self.ratio, *self.hierarchy))]

    def cells(self, look: Look, features: torch.Tensor, key: str) -> Redundant:
        """Cells of a grid dropped level by level, of features ``(problems, cells, width)``."""
        grid = look.grid
        found = Redundant.none(features.shape[0], features.shape[1], features.device, self.fills)
        for number, ratio in self.levels(grid.height, grid.width, self.ratio):
            groups = grouped(grid.height // number, grid.width // number, self.side)
            cut = tiles(grid.height, grid.width, number).to(features.device)
            part = found.part(cut)
            stay = look.old(key, self.max_age, found.dropped)
            part = part.drop(
                features[:, cut].flatten(0, 1),
                groups,
                groups.most(ratio, part.count),
                look.lottery(groups.units),
                None if stay is None else stay[:, cut].flatten(0, 1),
                look.votes(len(features), self.aligned),
            )
            found = found.whole(part, cut)
        look.grow(key, self.max_age, found.dropped)
        return found

    def between(self, look: Look, found: Redundant) -> tuple[torch.Tensor, torch.Tensor]:
        """For each cell all cells of its group, and weights: the mean of those that stay. ``(problems, cells, m)``."""
        grid, device = look.grid, found.dropped.device
        group = squares(grid.height, grid.width, self.side)
        order = group.argsort(stable=True)
        most = int(torch.bincount(group).max())
        first = torch.searchsorted(group[order].contiguous(), group)
        size = torch.bincount(group)[group]
        places = first[:, None] + torch.arange(most)
        inside = torch.arange(most) < size[:, None]
        members = order[places.clamp_max(len(order) - 1)].to(device).expand(len(found.dropped), -1, -1)
        stays = ~found.dropped.gather(1, members.flatten(1)).view_as(members) & inside.to(device)
        weights = stays / stays.sum(-1, keepdim=True).clamp_min(1)
        own = torch.arange(members.shape[1], device=device)[:, None] == members
        weights = torch.where(found.dropped[..., None], weights, own.to(weights.dtype))
        return members, weights


class Look:
    """What a selector sees at one site.

    Attributes:
        film: features, ``(batch, frames, cells, width)``.
        ids: the rows at those places, ``(batch, frames, cells)``.
        ages: steps for which units were dropped in a row, by name.
    """

    def __init__(
        self,
        film: torch.Tensor,
        ids: torch.Tensor,
        grid: Grid,
        site: Site,
        lottery: Callable[[int], torch.Tensor],
        ages: dict[Any, torch.Tensor],
        together: bool,
    ):
        self.film, self.ids, self.grid, self.site, self.lottery = film, ids, grid, site, lottery
        self.ages, self.together = ages, together

    def votes(self, problems: int, aligned: bool) -> int:
        """How many parts of so many problems, which are sorted by the batch first, must drop the same."""
        if self.together:
            return problems
        return 2 if aligned and self.grid.guided and problems % 2 == 0 else 1

    def old(self, key: str, limit: int | None, like: torch.Tensor) -> torch.Tensor | None:
        """Which units have been dropped too often."""
        ages = self.ages.get((key, self.site.name))
        return ages >= limit if limit is not None and ages is not None and ages.shape == like.shape else None

    def grow(self, key: str, limit: int | None, dropped: torch.Tensor) -> None:
        if limit is not None:
            before = self.ages.get((key, self.site.name))
            before = 0 if before is None or before.shape != dropped.shape else before
            self.ages = {**self.ages, (key, self.site.name): torch.where(dropped, before + 1, 0)}


__all__ = ["Box", "Look", "Ratio", "Redundancy"]
