"""What is measured: methods, each at several values of its main knob."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from omnicache import registry

FIRST = ("fewer-steps", "none")
"""In every comparison, whatever was asked for: a cache that loses to them is worthless."""


@dataclass(frozen=True)
class Setting:
    """A method with some of its options."""

    method: str
    options: Mapping[str, Any]

    @property
    def label(self) -> str:
        """For people, and unique: ``taylorseer interval=4``."""
        return " ".join([self.method, *registry.in_words(self.options)])


def settings_of(names: Iterable[str], most: int | None = None) -> list[Setting]:
    """All settings of these methods, those that say the most first.

    ``fewer-steps`` and ``none`` come first; then the middle value of every method, then what is beside it; methods that are slow to
    calibrate last. ``most`` thins a sweep out to so many values, that of ``fewer-steps`` to twice as many.

    Raises:
        OmniCacheError: there is no such method.
    """
    entries = [registry.get(name) for name in dict.fromkeys((*FIRST, *names))]
    ranked: list[tuple[tuple[int, int], Setting]] = []
    for entry in entries:
        values = entry.settings
        count = None if most is None else 2 * most if entry.name in FIRST else most
        if count is not None and len(values) > count:
            values = tuple(values[round((i + 1) * (len(values) - 1) / (count + 1))] for i in range(count))
        middle = (len(values) - 1) / 2
        nearest = sorted(range(len(values)), key=lambda i: abs(i - middle))
        for rank, i in enumerate(range(len(values)) if entry.name in FIRST else nearest):
            part = 0 if entry.name in FIRST else 2 if entry.slow_to_calibrate else 1
            ranked.append(((part, rank if part == 1 else 0), Setting(entry.name, values[i])))
    return [setting for _, setting in sorted(ranked, key=lambda one: one[0])]
