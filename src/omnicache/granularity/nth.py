from __future__ import annotations

from omnicache.models.map import ModelMap, Site
from omnicache.policy import Where, value


@value
class Nth(Where):
    """One of the sites that ``where`` picks, in the order in which the model has them; negative numbers count from the end.

    For plans that decide module by module.
    """

    where: Where
    index: int

    def select(self, model: ModelMap) -> tuple[Site, ...]:
        place = {site: i for i, site in enumerate(model.all)}
        sites = sorted(self.where.select(model), key=lambda site: place.get(site, -1))
        return (sites[self.index],) if -len(sites) <= self.index < len(sites) else ()
