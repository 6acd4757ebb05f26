from __future__ import annotations

import math
from typing import Annotated

import torch

from omnicache.errors import OmniCacheError
from omnicache.policy import value
from omnicache.schema import Range
from omnicache.selectors.base import Box, Look, Redundancy
from omnicache.selectors.matching import Redundant, in_rows, tiles


@value
class Frames(Redundancy):
    """Frame Cache (the multidimensional OmniCache, rule R2): frames that are nearly the same as a neighbour.

    With patches each part of the picture drops frames of its own, and what stays is stacked in the order of time into fewer frames,
    each of which may hold parts of several (rule R5); not where each frame has a condition of its own.

    Attributes:
        neighbours: frames of a group, of which one stays; None for 2, or as many as the ratio needs.
    """

    neighbours: Annotated[int, Range(2)] | None = None

    def __post_init__(self) -> None:
        if self.max_age is not None and self.hierarchy:
            raise OmniCacheError(
                "After frames were dropped once it is not known whose turn it is: give max_age to frames without a hierarchy."
            )
        left = 1.0
        for ratio in (self.ratio, *self.hierarchy):
            size = self.neighbours or self._size(ratio / left)
            self.refuse("frames", ratio / left, size)
            left -= ratio

    @staticmethod
    def _size(ratio: float) -> int:
        """Frames of a group that let so large a share of them go."""
        return max(2, math.ceil(1 / (1 - ratio) - 1e-9)) if ratio < 1 else 2

    def find(self, look: Look) -> Box:
        film, ids, total = look.film, look.ids, look.film.shape[1]
        now = torch.arange(look.grid.entries * look.grid.rows, device=ids.device)  # for each row the one that stands for it
        whole = look.site.kind == "cross_attention"
        levels = [(1, self.ratio)] if whole else self.levels(look.grid.height, look.grid.width)
        for i, (number, ratio) in enumerate(levels):
            kept, match = self._drop(look, film, number, ratio * total / film.shape[1])
            if match is not None:
                now = now.scatter(0, ids.flatten(), ids.gather(1, match).flatten())[now]
            ids = ids.gather(1, kept)
            if i + 1 < len(levels):
                film = film.gather(1, kept[..., None].expand(-1, -1, -1, film.shape[3]))
        if self.stand_in == "between":
            return ids, *_between(look.ids, ids)
        return ids, now[look.ids][..., None] if self.fills else None, None

    def _drop(self, look: Look, film: torch.Tensor, number: int, ratio: float) -> tuple[torch.Tensor, torch.Tensor | None]:
        """One level: for each cell the frames that stay, ``(batch, frames', cells)``, and for each frame the one that it is now."""
        batch, frames, cells, _ = film.shape
        size = self.neighbours or self._size(ratio)
        groups = in_rows(frames, size, self.turns)
        cut = tiles(look.grid.height, look.grid.width, number).to(film.device)
        parts = film[:, :, cut] if number > 1 else film[:, :, None]
        found = Redundant.none(batch * len(cut), frames, film.device, self.fills).drop(
            parts.movedim(2, 1).reshape(batch * len(cut), frames, -1),
            groups,
            groups.most(ratio),
            look.lottery(frames),
            look.turn,
            look.votes(batch, self.aligned),
        )
        patch = torch.arange(len(cut), device=cut.device).repeat_interleave(cells // len(cut))[cut.flatten().argsort()]

        def of_cells(which: torch.Tensor) -> torch.Tensor:
            return which.view(batch, len(cut), -1).index_select(1, patch).transpose(1, 2)

        return of_cells(found.kept), None if found.match is None else of_cells(found.match)


def _between(ids: torch.Tensor, kept: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """For each row the rows of the same position in the frames before and after it that stay, and their linear weights."""
    batch, frames, cells = ids.shape
    times = torch.arange(frames, device=ids.device)
    place = (ids[:, :, None] == kept[:, None]).to(torch.int64)  # which frame each row that stays is of
    of = (place * times[:, None, None]).sum(1).transpose(1, 2).contiguous()  # batch, cells, frames'
    asked = times.expand(batch, cells, -1).contiguous()
    after = torch.searchsorted(of, asked).clamp_max(of.shape[2] - 1)
    before = (torch.searchsorted(of, asked, right=True) - 1).clamp_min(0)
    early, late = of.gather(2, before), of.gather(2, after)
    share = ((asked - early) / (late - early).clamp_min(1)).clamp(0, 1)
    share = torch.where(late > early, share, 0.0)
    rows = kept.transpose(1, 2)
    found = torch.stack((rows.gather(2, before), rows.gather(2, after)), dim=-1)
    return found.transpose(1, 2), torch.stack((1 - share, share), dim=-1).transpose(1, 2)
