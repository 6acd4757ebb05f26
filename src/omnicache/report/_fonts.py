"""The font of drawn pictures: Pillow's own, so that it is there on every machine."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from omnicache.report._need import need


@lru_cache(maxsize=8)
def font(size: int) -> Any:
    return need("PIL.ImageFont").load_default(size=size)
