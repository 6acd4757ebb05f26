from __future__ import annotations

from torch import nn

from omnicache.errors import OmniCacheError
from omnicache.granularity import MLP, Attention, Nth
from omnicache.models import discover
from omnicache.models.map import Site
from omnicache.policy import Where

GATED: Where = Attention() | MLP()
"""What the gates of a table are about: every attention and feed-forward module."""


def gated_sites(method: str, model: nn.Module, where: Where = GATED) -> tuple[Site, ...]:
    """The sites that a fit has gates for, in the model's order, in which ``Nth`` counts them.

    Raises:
        OmniCacheError: there are none.
    """
    found = discover(model)
    sites = Nth(where, tuple(range(len(where.select(found))))).select(found)
    if not sites:
        raise OmniCacheError(f"{method} finds no {where} in {type(model).__name__}, so there is nothing to fit.")
    return sites
