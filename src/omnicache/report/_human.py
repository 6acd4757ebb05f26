"""Numbers as people write them. A missing number is an en dash."""

from __future__ import annotations

import math

from omnicache.guards import human_bytes

MISSING = "–"


def seconds(value: float | None) -> str:
    if value is None:
        return MISSING
    return f"{value:.2f} s" if value < 10 else f"{value:.1f} s" if value < 100 else f"{value:.0f} s"


def times(value: float | None) -> str:
    return MISSING if value is None else f"{value:.2f}×"


def spread(value: tuple[float, float] | None) -> str:
    return "" if value is None else f"{value[0]:.2f}–{value[1]:.2f}"


def percent(value: float | None) -> str:
    return MISSING if value is None else f"{100 * value:.0f}%"


def decibel(value: float | None) -> str:
    """PSNR without its unit; equal pictures have an infinite one."""
    if value is None:
        return MISSING
    return "identical" if math.isinf(value) else f"{value:.1f}"


def three_digits(value: float | None) -> str:
    return MISSING if value is None else f"{value:.3f}"


def memory(value: float | None) -> str:
    return MISSING if value is None else human_bytes(round(value))


def plain(value: object) -> str:
    """An option or a setting: 2.0 is written 2."""
    return f"{value:g}" if isinstance(value, float) else str(value)
