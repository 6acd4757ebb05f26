"""Numbers as people write them. A missing number is an en dash."""

from __future__ import annotations

import math

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
    """Bytes in decimal units with three digits: ``123 kB``, ``1.42 MB``."""
    if value is None:
        return MISSING
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5 or unit == "GB":
            break
        value /= 1000
    digits = 0 if unit == "B" or value >= 100 else 1 if value >= 10 else 2
    return f"{value:.{digits}f} {unit}"


def plain(value: object) -> str:
    """An option or a setting: 2.0 is written 2."""
    return f"{value:g}" if isinstance(value, float) else str(value)
