"""Settings that were tried, as the rows that the frontier's chart takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def trial_rows(tried: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of ``{"label", "speedup", "psnr"}``, and ``"method"`` where that is not what stands before the label's first comma;
    without those that lack a figure."""
    rows = [
        {
            "label": str(one["label"]),
            "method": str(one.get("method") or str(one["label"]).split(",")[0]),
            "speedup": {"median": float(one["speedup"])},
            "psnr": {"mean": float(one["psnr"])},
        }
        for one in tried
        if one.get("psnr") is not None and one.get("speedup")
    ]
    for row in rows:
        row["frontier"] = not any(_beats(other, row) for other in rows)
        worse = any(_beats(other, row) for other in rows if other["method"] == "fewer-steps")
        row["verdict"] = "reference" if row["method"] == "fewer-steps" else "worse" if worse else "even"
    return rows


def _beats(a: dict[str, Any], b: dict[str, Any]) -> bool:
    mine, other = (a["speedup"]["median"], a["psnr"]["mean"]), (b["speedup"]["median"], b["psnr"]["mean"])
    return mine[0] >= other[0] and mine[1] >= other[1] and mine != other
