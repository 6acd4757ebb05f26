from __future__ import annotations

from omnicache.models.map import ModelMap, Site
from omnicache.policy import Where, value


@value
class Nth(Where):
    """One of the sites that ``where`` picks, or some of them, in the order in which the model has them; negative numbers count
    from the end.

    For plans that decide module by module.

    Attributes:
        of: how many ``where`` must pick. A model in which it picks another number is not the one that was meant, and has no such
            site; None for any number.
    """

    where: Where
    index: int | tuple[int, ...]
    of: int | None = None

    def select(self, model: ModelMap) -> tuple[Site, ...]:
        place = {site: i for i, site in enumerate(model.all)}
        sites = sorted(self.where.select(model), key=lambda site: place.get(site, -1))
        wanted = (self.index,) if isinstance(self.index, int) else self.index
        if self.of not in (None, len(sites)):
            return ()
        return tuple(sites[i] for i in wanted if -len(sites) <= i < len(sites))
