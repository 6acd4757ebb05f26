"""Set algebra on places, and a choice between two."""

from __future__ import annotations

from omnicache.models.map import ModelMap, Site
from omnicache.policy import Where, value


@value
class Union(Where):
    """The sites of either."""

    a: Where
    b: Where

    def select(self, model: ModelMap) -> tuple[Site, ...]:
        return tuple(dict.fromkeys((*self.a.select(model), *self.b.select(model))))


@value
class Intersection(Where):
    """The sites of both."""

    a: Where
    b: Where

    def select(self, model: ModelMap) -> tuple[Site, ...]:
        other = set(self.b.select(model))
        return tuple(s for s in self.a.select(model) if s in other)


@value
class Difference(Where):
    """The sites of ``a`` that ``b`` does not pick."""

    a: Where
    b: Where

    def select(self, model: ModelMap) -> tuple[Site, ...]:
        other = set(self.b.select(model))
        return tuple(s for s in self.a.select(model) if s not in other)


@value
class Else(Where):
    """The sites of ``a``; those of ``b`` in a model where ``a`` picks none."""

    a: Where
    b: Where

    def select(self, model: ModelMap) -> tuple[Site, ...]:
        return self.a.select(model) or self.b.select(model)
