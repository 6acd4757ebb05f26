from __future__ import annotations

from omnicache.errors import OmniCacheError
from omnicache.models.map import ModelMap, Site
from omnicache.policy import Where, value


@value
class Nth(Where):
    """One of the sites that ``where`` picks, or some of them, in the order in which the model has them; negative numbers count
    from the end.

    Attributes:
        index: a whole number or several; or a fraction from 0.0 to 1.0, a place along them, of which 0.5 is the middle.
        of: how many ``where`` must pick. A model in which it picks another number is not the one that was meant, and has no such
            site; None for any number.
    """

    where: Where
    index: int | tuple[int, ...] | float
    of: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.index, float) and not 0 <= self.index <= 1:
            raise OmniCacheError(f"Nth: option index: {self.index} is neither a whole number nor a share from 0.0 to 1.0.")

    def select(self, model: ModelMap) -> tuple[Site, ...]:
        place = {site: i for i, site in enumerate(model.all)}
        sites = sorted(self.where.select(model), key=lambda site: place.get(site, -1))
        if self.of not in (None, len(sites)) or not sites:
            return ()
        index = min(int(self.index * len(sites)), len(sites) - 1) if isinstance(self.index, float) else self.index
        wanted = (index,) if isinstance(index, int) else index
        return tuple(sites[i] for i in wanted if -len(sites) <= i < len(sites))
