from __future__ import annotations

from omnicache.policy import value
from omnicache.selectors.base import Box, Look, Redundancy


@value
class Tokens(Redundancy):
    """Token Cache (the multidimensional OmniCache, rule R1): tokens of a frame that are nearly the same as others of it."""

    def find(self, look: Look) -> Box:
        batch, frames, cells, _ = look.film.shape
        found = self.cells(look, look.film.flatten(0, 1), "tokens")
        kept = look.ids.gather(2, found.kept.view(batch, frames, -1))
        if self.stand_in != "between":
            stand = None if found.match is None else look.ids.gather(2, found.match.view(batch, frames, cells))[..., None]
            return kept, stand, None
        places, weights = self.between(look, found)
        size = (batch, frames, cells, -1)
        return kept, look.ids.gather(2, places.reshape(batch, frames, -1)).view(size), weights.reshape(size)
