from __future__ import annotations

from omnicache.models.map import ModelMap, Site
from omnicache.policy import Where, value


@value
class Called(Where):
    """The sites of another place, under a name for people: a model that has none of them is told so.

    Attributes:
        called: the name, as in "cross-attention".
        optional: whether such a model is cached all the same, without them; its trace says so. If not, it is refused.
    """

    where: Where
    called: str  # pyright: ignore[reportIncompatibleVariableOverride]
    optional: bool = False  # pyright: ignore[reportIncompatibleVariableOverride]

    def select(self, model: ModelMap) -> tuple[Site, ...]:
        return self.where.select(model)
