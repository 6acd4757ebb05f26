"""Which setting of a contender is taken for a goal, by its figures on the tuning inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

CLOSE = 0.75
"""Share of the fastest one's speed that a setting must have to be timed again: few pairs are not surer than that."""
SCREEN = 4.5
"""dB below a goal at which a setting's first batch says that all inputs together will not reach it."""
FAR, SLOW = "far from every goal", "others of this contender reach the goals and are much faster"
"""Why a setting was settled by its first batch."""


def choice(rows: Sequence[Mapping[str, Any]], goal: float) -> Mapping[str, Any] | None:
    """The fastest of one contender's settings that reaches ``goal`` dB and is faster than uncached; None if none is.

    A setting that was made for one goal stands for no other, and for that one it stands by itself: whoever made it has chosen.
    """
    return next(iter(_good(rows, goal)), None)


def settled(rows: Sequence[Mapping[str, Any]], goals: Sequence[float], psnr: float, speedup: float) -> str:
    """Why nothing more need be known of a setting whose first batch, in one pair, has shown this much; "" where it may yet be the
    choice for a goal. ``rows`` are the contender's earlier ones."""
    near = [goal for goal in goals if psnr >= goal - SCREEN]
    if not near:
        return FAR
    fastest = [max((row["speedup"]["median"] for row in _good(rows, goal)), default=0.0) for goal in near]
    return SLOW if all(speedup < CLOSE * fast for fast in fastest) else ""


def finalists(rows: Sequence[dict[str, Any]], goal: float, most: int, kind: Sequence[dict[str, Any]] = ()) -> list[dict[str, Any]]:
    """At most so many of one contender's settings, the fastest first, where it is not plain which one that is; none where another
    of its ``kind``, of all whose settings these are the rows, is much faster than any."""
    good = _good(rows, goal)
    fastest, of_all = (next((row["speedup"]["median"] for row in _good(which, goal)), 0.0) for which in (rows, kind))
    close = [row for row in good if row["speedup"]["median"] >= CLOSE * fastest][:most]
    return close if len(close) > 1 and fastest >= CLOSE * of_all else []


def _good(rows: Sequence[Any], goal: float) -> list[Any]:
    known = [row for row in rows if row["state"] == "measured" and not row.get("settled")]
    mine = [row for row in known if row["options"].get("goal", goal) == goal]
    good = [row for row in mine if row["speedup"]["median"] > 1 and (row["psnr"]["mean"] >= goal or "goal" in row["options"])]
    return sorted(good, key=lambda row: (row["speedup"]["median"], row["psnr"]["mean"]), reverse=True)


def nearest(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The likest of one contender's settings that is faster than uncached."""
    faster = [row for row in rows if row["state"] == "measured" and row["speedup"]["median"] > 1]
    return max(faster, key=lambda row: row["psnr"]["mean"], default=None)
