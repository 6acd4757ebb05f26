"""Where a model's sites are."""

from omnicache.models.discover import discover
from omnicache.models.map import ModelMap, Site

__all__ = ["ModelMap", "Site", "discover"]
