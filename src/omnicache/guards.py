"""What a plan may not exceed, whatever its method."""

from __future__ import annotations

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
        """The limit as it was given, in words."""
        return self.memory if isinstance(self.memory, str) else "no limit" if self.memory is None else human_bytes(self.memory)

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
    size, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size, _ = size / 1024, units.pop(0)
    return f"{size:.0f} {units[0]}" if units[0] == "B" else f"{size:.1f} {units[0]}"
