from __future__ import annotations

import torch
from torch.nn.functional import pad

from omnicache.policy import value
from omnicache.selectors.base import Box, Look, Redundancy


@value
class Tokens(Redundancy):
    """Token Cache (the multidimensional OmniCache, rule R1): tokens of a frame that are nearly the same as others of it.

    Where all of a film is one sequence (full attention in three dimensions), tokens of two frames are compared in cubes; of an odd
    number of frames the last by itself.
    """

    def find(self, look: Look) -> Box:
        if look.grid.along != "film" or look.grid.frames == 1:
            return self._of(look, look.film, look.ids)
        even = look.grid.frames // 2 * 2
        parts = [[x[:, :even].unflatten(1, (-1, 2)).flatten(2, 3), x[:, even:]] for x in (look.film, look.ids)]
        found = [self._of(look, film, ids, 2 - i) for i, (film, ids) in enumerate(zip(*parts, strict=True)) if ids.numel()]
        kept = torch.cat([k.flatten(1) for k, _, _ in found], dim=1)[:, None]
        most, batch, cells = max((s.shape[-1] for _, s, _ in found if s is not None), default=0), *look.ids.shape[::2]

        def in_time(parts: list[torch.Tensor | None]) -> torch.Tensor | None:
            there = [pad(x, (0, most - x.shape[-1])).reshape(batch, -1, cells, most) for x in parts if x is not None]
            return torch.cat(there, dim=1) if there else None

        return kept, in_time([s for _, s, _ in found]), in_time([w for _, _, w in found])

    def _of(self, look: Look, film: torch.Tensor, ids: torch.Tensor, depth: int = 1) -> Box:
        """Of films ``(batch, problems, depth * cells, width)``, each problem by itself."""
        found = self.cells(look, film.flatten(0, 1), depth)
        number = self.groups(look.grid.height, look.grid.width, 1, depth).number
        return ids.gather(2, found.kept.view(*ids.shape[:2], -1)), *self.stands(ids, found, number)
