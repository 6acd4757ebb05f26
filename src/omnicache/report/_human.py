"""Numbers as people write them. A missing number is an en dash."""

from __future__ import annotations

from omnicache import words
from omnicache.guards import human_bytes

MISSING = "–"


def seconds(value: float | None) -> str:
    return MISSING if value is None else words.seconds(value)


def times(value: float | None) -> str:
    return MISSING if value is None else f"{value:.2f}×"


def spread(value: tuple[float, float] | None) -> str:
    return "" if value is None else f"{value[0]:.2f}–{value[1]:.2f}"


def percent(value: float | None) -> str:
    return MISSING if value is None else f"{100 * value:.0f}%"


def decibels(value: float | None) -> str:
    """PSNR with its unit; equal pictures have an infinite one."""
    return MISSING if value is None else words.decibels(value)


def decibel(value: float | None) -> str:
    """PSNR without its unit."""
    return decibels(value).removesuffix(" dB")


def three_digits(value: float | None) -> str:
    return MISSING if value is None else f"{value:.3f}"


def memory(value: float | None) -> str:
    return MISSING if value is None else human_bytes(round(value))


def plain(value: object) -> str:
    """An option or a setting: 2.0 is written 2."""
    return f"{value:g}" if isinstance(value, float) else str(value)
