"""Plans that are made once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from omnicache.errors import OmniCacheError
from omnicache.plan import Plan


def kept_plan(path: str | Path, make: Callable[[], Plan]) -> Plan:
    """The plan in a file; if there is none that can be read, one is made and saved there."""
    with suppress(OmniCacheError):
        return Plan.load(path)
    return Plan.load(make().save(path))
