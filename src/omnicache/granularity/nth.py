from __future__ import annotations

from omnicache.errors import OmniCacheError
from omnicache.models.map import ModelMap, Site
from omnicache.policy import Where, value


@value
class Nth(Where):
    """One of the sites that ``where`` picks, in the order in which the model has them; negative numbers count from the end.

    A fraction from 0.0 to 1.0 is a place along them: 0.5 is the middle one.
    """

    where: Where
    index: int | float

    def __post_init__(self) -> None:
        if isinstance(self.index, float) and not 0 <= self.index <= 1:
            raise OmniCacheError(f"Nth: option index: {self.index} is neither a whole number nor a share from 0.0 to 1.0.")

    def select(self, model: ModelMap) -> tuple[Site, ...]:
        place = {site: i for i, site in enumerate(model.all)}
        sites = sorted(self.where.select(model), key=lambda site: place.get(site, -1))
        index = self.index if isinstance(self.index, int) else min(int(self.index * len(sites)), len(sites) - 1)
        return (sites[index],) if -len(sites) <= index < len(sites) else ()
