from __future__ import annotations

from omnicache.policy import value
from omnicache.selectors.base import Box, Look, Redundancy


@value
class Positions(Redundancy):
    """Block Cache (the multidimensional OmniCache, rule R3): positions that move as others do, dropped in all frames.

    A *block* of the paper is what one position holds in all frames.
    """

    def find(self, look: Look) -> Box:
        batch, frames, cells, _ = look.film.shape
        found = self.cells(look, look.film.transpose(1, 2).flatten(2), "positions")
        kept = look.ids.gather(2, found.kept[:, None].expand(-1, frames, -1))
        if self.stand_in != "between":
            stand = None if found.match is None else look.ids.gather(2, found.match[:, None].expand(-1, frames, -1))[..., None]
            return kept, stand, None
        places, weights = self.between(look, found)
        flat = places.flatten(1)[:, None].expand(-1, frames, -1)
        size = (batch, frames, cells, -1)
        return kept, look.ids.gather(2, flat).view(size), weights[:, None].expand(size)
