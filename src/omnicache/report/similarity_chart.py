"""How alike the paths of several inputs and seeds are."""

from __future__ import annotations

import json
from typing import Any

from omnicache.report._need import need
from omnicache.report._svg import COLOURS
from omnicache.report.layer_chart import shaded

MOST = 32  # paths drawn


def similarity_chart(similarity: list[list[float]], labels: list[str], side: int = 300) -> Any:
    """An altair heat map of the similarity in [0, 1] of every pair of paths."""
    alt = need("altair")
    every = max(1, -(-len(similarity) // MOST))
    kept = list(range(0, len(similarity), every))
    rows = [{"a": i, "b": j, "v": round(float(similarity[i][j]), 4)} for i in kept for j in kept]
    names = {i: str(labels[i])[:18] for i in kept if i < len(labels)}
    few = len(kept) <= 16
    shown = f"{_json(names)}[datum.value]" if few else "''"
    axis = alt.Axis(labelExpr=shown, title=None, ticks=False, domain=False, labelLimit=110, labelPadding=6)
    low = min([row["v"] for row in rows], default=0.0)
    domain = [max(bound for bound in (0.0, 0.25, 0.5, 0.75, 0.9, 0.95) if bound <= max(low, 0)), 1.0]
    shade = shaded("v", None, (domain[0], 1.0), ".2~f")
    chart = alt.Chart(alt.InlineData(values=rows))
    chart = chart.mark_rect(color=COLOURS["heat"], stroke=COLOURS["ground"], strokeWidth=1 if few else 0)
    y = alt.Y("b:O", axis=axis)
    x = alt.X("a:O", axis=None)
    return chart.encode(x=x, y=y, opacity=shade).properties(width=side, height=side)


def _json(names: dict[int, str]) -> str:
    """A dictionary as an expression of vega's language."""
    return json.dumps({str(key): value for key, value in names.items()})
