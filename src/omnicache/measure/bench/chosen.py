"""Which settings are worth all samples."""

from __future__ import annotations

from collections.abc import Sequence

from omnicache.measure.bench.found import Found
from omnicache.measure.bench.frontier import below, lead

NEAR = 1.0
"""dB below the frontier that count as being close to it: what the first few samples may be wrong by."""


def chosen(found: Sequence[Found], near: int) -> list[Found]:
    """By the figures on the first samples: fewer steps, each method's best, and at most ``near`` more that are on the frontier or
    close to it. ``none`` is the uncached pipeline, and known.

    A method's best is the setting that is furthest ahead of fewer steps at its speed, or least behind; after these come settings
    that are slower than the most steps that were measured of fewer steps, and last those that are slower than without a cache.
    """
    known = [one for one in found if one.first is not None and one.setting.method != "none"]
    if not known:
        return []
    fewer = [one for one in known if one.setting.method == "fewer-steps"]
    speeds = {one.key: one.first["speedup"]["median"] for one in known if one.first}
    points = {one.key: (speeds[one.key], one.first["psnr"]["mean"]) for one in known if one.first and speeds[one.key] >= 1}
    caches = [one for one in known if one.setting.method != "fewer-steps"]
    best = [max((o for o in caches if o.setting.method == name), key=lambda o: standing(o, fewer)) for name in _names(caches)]
    gap = {one.key: below(points, one.key) if one.key in points else float("inf") for one in known}
    others = sorted((one for one in caches if one not in best), key=lambda one: gap[one.key])
    close = [one for one in others if gap[one.key] <= NEAR][:near]
    order = sorted([*best, *close], key=lambda one: gap[one.key])
    return [*fewer, *order] if near else order


def standing(one: Found, fewer: Sequence[Found]) -> tuple[bool, bool, float]:
    """How a setting stands to fewer steps, larger being better, by the first samples or, where all have them, by all."""
    row, rows = one.first, [f.first for f in fewer if f.first is not None]
    if one.closely is not None and all(f.closely is not None for f in fewer):
        row, rows = one.closely, [f.closely for f in fewer if f.closely is not None]
    assert row is not None
    speed = row["speedup"]["median"]
    others = [(r["speedup"]["median"], r["psnr_each"]) for r in rows]
    ahead = lead(speed, row["psnr_each"], others)
    return speed >= 1, speed >= min((x for x, _ in others), default=1.0), ahead["mean"] if ahead else float("-inf")


def _names(found: Sequence[Found]) -> list[str]:
    return list(dict.fromkeys(one.setting.method for one in found))
