from __future__ import annotations

from dataclasses import replace

import torch
from torch.nn.functional import pad

from omnicache.kernels import most_alike
from omnicache.policy import value
from omnicache.selectors.base import Box, Look, Ratio
from omnicache.selectors.matching import Redundant, refuse
from omnicache.selectors.tokens import Tokens


@value
class FramesAndTokens(Tokens):
    """The combined Frame and Token Cache (the multidimensional OmniCache, rule R4).

    The neighbouring frames that are most alike share one sequence, which keeps as many tokens as every other frame does by itself:
    dropping whole frames first and tokens then would take more from motion.

    ``ratio`` is that of tokens, ``frames`` that of frames. Where each row looks at a condition of its frame, where all sequences
    share a table of positions, and where frames cannot be paired, tokens alone are dropped.
    """

    frames: Ratio = 0.4

    def __post_init__(self) -> None:
        cells = self.side**2
        stay = 2 * self.stays(cells)
        refuse("frames", self.frames, 0.5, "one of each two neighbours stays")
        refuse("tokens of frames in pairs", self.ratio + sum(self.hierarchy), 1 - stay / cells, f"{stay} of each {2 * cells} stay")

    def find(self, look: Look) -> Box:
        batch, frames, cells, width = look.film.shape
        pairs = min(int(self.frames * frames + 1e-9), frames // 2)
        if look.site.kind == "cross_attention" or pairs == 0:
            return super().find(look)
        if look.grid.along != "space" or look.together:
            look.note = (
                "Frames were not paired where they share a sequence or a table of positions; tokens alone were dropped there."
            )
            return super().find(look)
        grid, half = look.grid, frames // 2
        groups = self.groups(grid.height, grid.width, 1, 2, 2)  # cubes of two frames, of which two tokens stay
        room = (groups.units - groups.staying - cells) / cells  # on small uneven grids more must stay of a pair than of a frame
        if room < 0:
            return super().find(look)
        ahead = look.film[:, : 2 * half].unflatten(1, (half, 2))
        alike, _ = most_alike(ahead[:, :, 0].reshape(batch * half, 1, -1), ahead[:, :, 1].reshape(batch * half, 1, -1))
        score = alike.view(batch, half)
        votes = look.votes(batch, self.aligned)
        score = score.unflatten(0, (votes, -1)).mean(0).repeat(votes, 1)
        best = score.argsort(dim=1, descending=True, stable=True)[:, :pairs].sort(dim=1).values
        first = torch.zeros(batch, frames, dtype=torch.bool, device=score.device).scatter(1, 2 * best, True)
        paired = first | first.roll(1, dims=1)

        total = self.ratio + sum(self.hierarchy)
        alone = self if room >= total else replace(self, ratio=min(total, room), hierarchy=())
        single = alone.cells(look, look.film.flatten(0, 1))
        drop = single.count  # so many tokens go from a frame by itself, and from a pair a frame's worth more
        two = ahead.gather(1, best[:, :, None, None, None].expand(-1, -1, 2, cells, width)).flatten(0, 1).flatten(1, 2)
        double = Redundant.none(batch * pairs, 2 * cells, two.device, self.fills).drop(
            two, groups, groups.most((cells + drop) / (2 * cells)), look.lottery(groups.units), look.turn, vote=votes
        )
        ids_of = look.ids[:, : 2 * half].unflatten(1, (half, 2)).gather(1, best[:, :, None, None].expand(-1, -1, 2, cells))
        ids_of = ids_of.flatten(2)  # batch, pairs, tokens of both frames
        kept_two = ids_of.gather(2, double.kept.view(batch, pairs, -1))
        kept_one = look.ids.gather(2, single.kept.view(batch, frames, -1))
        # In the order of time: a pair stands where its first frame does.
        order = paired.to(torch.int8).argsort(dim=1, stable=True)[:, : frames - 2 * pairs]
        others = kept_one.gather(1, order[..., None].expand(-1, -1, kept_one.shape[2]))
        both, when = torch.cat((kept_two, others), dim=1), torch.cat((2 * best, order), dim=1)
        kept = both.gather(1, when.argsort(dim=1)[..., None].expand_as(both))

        stand, weights = self.stands(look.ids, single, self.groups(grid.height, grid.width, 1).number)
        stand_two, weights_two = self.stands(ids_of, double, groups.number)
        places = torch.stack((2 * best, 2 * best + 1), dim=2).flatten(1)

        def with_pairs(of_one: torch.Tensor | None, of_two: torch.Tensor | None) -> torch.Tensor | None:
            if of_one is None or of_two is None:
                return None
            count = of_two.shape[-1]
            where = places[..., None, None].expand(-1, -1, cells, count)
            return pad(of_one, (0, count - of_one.shape[-1])).scatter(1, where, of_two.reshape(batch, 2 * pairs, cells, count))

        return kept, with_pairs(stand, stand_two), with_pairs(weights, weights_two)
