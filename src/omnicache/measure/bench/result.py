"""A comparison as one JSON object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from omnicache import registry
from omnicache.integrations.pipelines import denoisers
from omnicache.measure.bench.chosen import standing
from omnicache.measure.bench.found import Found
from omnicache.measure.bench.frontier import frontier, lead, verdict
from omnicache.measure.bench.size import Size
from omnicache.measure.comparison import environment, rounded
from omnicache.measure.task import Task

LIKENESS = ("psnr", "ssim", "kid", "kid_above", "recognised")
FIGURES = ("samples", "speedup", "seconds", "compute_fraction", *LIKENESS, "cache_bytes", "computed")


def result_of(
    task: Task,
    size: Size,
    found: Sequence[Found],
    wanted: Sequence[Found],
    skipped: Mapping[str, str],
    further: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything that was found.

    Returns:
        What was measured on what; and ``further``.
        ``rows``: one for every measured setting: its figures, ``lead`` over fewer steps at equal speed, ``verdict``, whether it was
        looked at ``closely`` and is on the ``frontier``.
        ``methods``: one for every method that was measured: its ``best`` row, by label, that one's verdict, how many settings were
        measured, and how many of them are ``worse`` than fewer steps or slower than none; ``memory``, bytes at ``sides``.
        ``skipped``: what was not measured, with its reason; ``left_out``: settings for which there was no time.
    """
    device = next(denoisers(task.pipe)[0].parameters()).device
    fewer = [one for one in found if one.setting.method == "fewer-steps"]
    rows = {one.key: _row(one, fewer) for one in found if one.first is not None}
    closely = all(f.closely is not None for f in fewer) and bool(fewer)
    points = {key: (row["speedup"]["median"], row["psnr"]["mean"]) for key, row in rows.items() if row["closely"] == closely}
    edge = frontier({key: at for key, at in points.items() if rows[key]["method"] != "none" and at[0] >= 1})
    for key, row in rows.items():
        row["frontier"] = key in edge
    about = {"model": task.name, "class": type(task.pipe).__name__, "unit": task.unit}
    about |= {"steps": task.steps, "guidance": task.guidance, "samples": size.samples, "first": size.first, "batch": size.batch}
    about |= {"quick": not size.closely, **environment(device)}
    late = [one for one in found if one.first is None and one.refused is None]
    short = [one for one in wanted if one.closely is None]
    left_out = [one.setting.label for one in late] + [f"{one.setting.label}, on all {task.unit}s" for one in short]
    return rounded(
        {
            **about,
            **further,
            "rows": list(rows.values()),
            "methods": _methods(found, rows, fewer),
            "skipped": [{"method": name, "why": why} for name, why in skipped.items()],
            "refused": [
                {"setting": one.setting.label, "why": one.refused}
                for one in found
                if one.refused is not None and one.setting.method not in skipped
            ],
            "left_out": left_out,
        },
        5,
    )


def _row(one: Found, fewer: Sequence[Found]) -> dict[str, Any]:
    """One setting. It is compared with fewer steps on the samples that both have."""
    assert one.row is not None
    closely = one.closely is not None and all(f.closely is not None for f in fewer)
    row = one.closely if one.closely is not None and closely else one.first
    others = [f.closely if closely else f.first for f in fewer]
    assert row is not None
    against = [(f["speedup"]["median"], f["psnr_each"]) for f in others if f is not None]
    about = {"method": one.setting.method, "label": one.setting.label, "options": dict(one.setting.options), "closely": closely}
    made = {**about, **{key: row.get(key) for key in FIGURES}, "pairs": len(row["pairs"]), "load": row.get("load")}
    made["note"] = " ".join(row.get("notes") or [])
    made["lead"] = lead(row["speedup"]["median"], row["psnr_each"], against) if against else None
    made["verdict"] = verdict(made)
    return made


def _methods(found: Sequence[Found], rows: Mapping[str, dict[str, Any]], fewer: Sequence[Found]) -> list[dict[str, Any]]:
    made = []
    for name in dict.fromkeys(one.setting.method for one in found):
        mine = [one for one in found if one.setting.method == name and one.first is not None]
        if not mine:
            continue
        closely = [one for one in mine if rows[one.key]["closely"]] or mine
        best = max(closely, key=lambda one: standing(one, fewer)) if name != "none" and fewer else mine[0]
        lost = sum(rows[one.key]["verdict"] in ("worse", "slower") for one in mine)
        row = {"method": name, "paper": registry.get(name).paper, "best": best.setting.label, "settings": len(mine), "worse": lost}
        memory = next((one.memory for one in mine if one.memory is not None), None)
        made.append({**row, "verdict": rows[best.key]["verdict"], "memory": memory})
    return made
