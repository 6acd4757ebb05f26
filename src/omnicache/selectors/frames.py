from __future__ import annotations

import math
from typing import Annotated

import torch

from omnicache.policy import value
from omnicache.schema import Range
from omnicache.selectors.base import Box, Look, Redundancy
from omnicache.selectors.matching import Groups, Redundant, refuse, tiles


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
        if self.neighbours is not None:
            refuse("frames", self.ratio, 1 - 1 / self.neighbours, f"one of each {self.neighbours} neighbours stays")

    def find(self, look: Look) -> Box:
        film, ids = look.film, look.ids
        now = torch.arange(look.grid.entries * look.grid.rows, device=ids.device)  # for each row the one that stands for it
        whole = look.site.kind == "cross_attention"
        for number, ratio in [(1, self.ratio)] if whole else self.levels(look.grid.height, look.grid.width):
            film, kept, match = self._drop(look, film, ids, number, ratio)
            now = now.scatter(0, ids.flatten(), match.flatten())[now]
            ids = kept
        if self.stand_in != "between":
            return ids, now[look.ids][..., None], None
        return ids, *_between(look.ids, ids)

    def _drop(self, look: Look, film: torch.Tensor, ids: torch.Tensor, number: int, ratio: float) -> tuple[torch.Tensor, ...]:
        """One level: the film and its rows without the frames that go, and for each row the one that it is now."""
        batch, frames, _, width = film.shape
        size = self.neighbours or max(2, math.ceil(1 / (1 - ratio)) if ratio < 1 else frames)
        groups = Groups(torch.arange(frames) // size)
        cut = tiles(look.grid.height, look.grid.width, number).to(film.device)
        parts = film[:, :, cut].movedim(2, 1)  # batch, patches, frames, cells of a patch, width
        key = f"frames {number}"
        none = Redundant.none(batch * len(cut), frames, film.device)
        found = none.drop(
            parts.reshape(batch * len(cut), frames, -1),
            groups,
            groups.most(ratio),
            look.lottery(frames),
            look.old(key, self.max_age, none.dropped),
            look.votes(batch, self.aligned),
        )
        look.grow(key, self.max_age, found.dropped)
        back = cut.flatten().argsort()

        def frames_of(which: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
            """Of each patch its own frames: ``which`` is ``(batch * patches, frames')``."""
            tall = which.view(batch, len(cut), -1).repeat_interleave(cut.shape[1], dim=1)[:, back].transpose(1, 2)
            return x.gather(1, tall if x.ndim == 3 else tall[..., None].expand(-1, -1, -1, width))

        return frames_of(found.kept, film), frames_of(found.kept, ids), frames_of(found.match, ids)


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
