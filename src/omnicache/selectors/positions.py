from __future__ import annotations

import torch

from omnicache.policy import value
from omnicache.selectors.base import Box, Look, Redundancy


@value
class Positions(Redundancy):
    """Block Cache (the multidimensional OmniCache, rule R3): positions that move as others do, dropped in all frames.

    A *block* of the paper is what one position holds in all frames.
    """

    def find(self, look: Look) -> Box:
        batch, frames, cells, _ = look.film.shape
        found = self.cells(look, look.film.transpose(1, 2).flatten(2))
        places = torch.arange(cells, device=look.ids.device).expand(batch, 1, -1)
        number = self.groups(look.grid.height, look.grid.width, 1).number

        def in_all(which: torch.Tensor) -> torch.Tensor:
            """Rows of those positions, frame by frame."""
            return look.ids.gather(2, which.reshape(batch, 1, -1).expand(-1, frames, -1)).view(batch, frames, *which.shape[2:])

        stand, weights = self.stands(places, found, number)
        kept = in_all(found.kept[:, None])
        return kept, None if stand is None else in_all(stand), None if weights is None else weights.expand(-1, frames, -1, -1)
