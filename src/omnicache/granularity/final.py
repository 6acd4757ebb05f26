from __future__ import annotations

from dataclasses import replace

from omnicache.models.map import ModelMap, Site
from omnicache.policy import Where, value


@value
class Final(Where):
    """What the last block hands on (FreqCa's cumulative residual feature): one value, however many blocks there are.

    It is kept as it is, not as an increment, so where it is estimated nothing that comes before is of use, and no block runs. Of a
    U-Net, whose blocks are no row, ``Deep(0)``.
    """

    def select(self, model: ModelMap) -> tuple[Site, ...]:
        return tuple(replace(site, layout="region") for site in model.sites("stack")) or model.deep(0)
