"""What selectors of columns share."""

from __future__ import annotations

import zlib
from typing import Annotated

import torch

from omnicache.schema import Range
from omnicache.selectors.matching import draw

Share = Annotated[float, Range(0, 1)]


def best(score: torch.Tensor, top: float, random: float, drawn_by: str, more: int = 0) -> torch.Tensor:
    """The columns of highest score, and others by chance, ascending: ``(..., groups, kept)`` of scores ``(..., groups, total)``.

    Chance falls alike for all samples and heads: what happens to one does not depend on its company.

    Args:
        top: share of the columns that are taken by their score, at least one of them.
        random: share of the columns that are taken by chance from the rest.
        drawn_by: the same words draw the same columns.
        more: so many more are taken by their score.
    """
    groups, total = score.shape[-2:]
    count = min(max(round(top * total), 1) + more, total)
    chosen = score.topk(count, dim=-1).indices
    if lucky := min(round(random * total), total - count):
        luck = draw(zlib.crc32(drawn_by.encode()), groups * total).view(groups, total).to(score.device)
        rest = luck.expand(score.shape).scatter(-1, chosen, -1)
        chosen = torch.cat((chosen, rest.topk(lucky, dim=-1).indices), dim=-1)
    return chosen.sort(dim=-1).values
