"""What a plan may not exceed, whatever its method."""

from __future__ import annotations

import math
import re

from omnicache.errors import OmniCacheError
from omnicache.policy import value

UNITS = {"": 1, "B": 1} | {f"{p}{u}": n**i for u, n in (("B", 1000), ("iB", 1024)) for i, p in enumerate("KMGT", 1)}


@value
class Guards:
    """Limits that hold for every run of a plan.

    Attributes:
        memory: the most that a denoiser's cache may hold on its device, over all that belongs to one run: ``"200 MB"``,
            ``"1.5 GiB"``, or a number of bytes. None is no limit. To stay below, values are first kept in half precision, then
            on the host, then fewer of them (a lower order of the predictor), then for fewer sites; the run says which.

    Raises:
        OmniCacheError: not an amount of memory.
    """

    memory: str | int | None = None

    def __post_init__(self) -> None:
        if self.memory is not None:
            bytes_of(self.memory)

    def __str__(self) -> str:
        """The limit in words, as it was given if that has a unit."""
        if self.memory is None:
            return "no limit"
        return str(self.memory) if str(self.memory).strip()[-1:].isalpha() else human_bytes(bytes_of(self.memory))

    @property
    def bytes(self) -> int | None:
        """The limit as a number of bytes."""
        return None if self.memory is None else bytes_of(self.memory)


def bytes_of(amount: str | int) -> int:
    """``"1.5 GiB"`` as bytes. MB and GB are powers of 1000, MiB and GiB of 1024."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", str(amount))
    units = {k.lower(): v for k, v in UNITS.items()}
    if found is None or found[2].lower() not in units:
        raise OmniCacheError(f'{amount!r} is no amount of memory. Write "200 MB", "1.5 GiB", or a number of bytes.')
    return int(float(found[1]) * units[found[2].lower()])


def human_bytes(count: int) -> str:
    """``1536`` as ``"1.5 KiB"``."""
    size, unit = _in_units(count)
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def limit_for(count: int) -> str:
    """The smallest limit of two digits or more that ``count`` bytes stay within: ``1500`` gives ``"1.5 KiB"``."""
    size, unit = _in_units(count)
    return f"{count} B" if unit == "B" else f"{math.ceil(10 * size) / 10:.1f} {unit}"


def _in_units(count: int) -> tuple[float, str]:
    size, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size, _ = size / 1024, units.pop(0)
    return size, units[0]
