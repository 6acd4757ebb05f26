"""One measured quantity over the steps, with the steps that are reused marked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from omnicache.report._need import need
from omnicache.report._svg import COLOURS


def step_chart(values: Sequence[float | None], schedule: str, title: str, width: int = 400, height: int = 200) -> Any:
    """An altair chart: a line, a small dot at each computed step, a filled coloured one at each reused step; nothing
    where there is no value."""
    alt = need("altair")
    rows = [
        {"step": i + 1, "value": float(v), "reused": i < len(schedule) and schedule[i] != "#"}
        for i, v in enumerate(values)
        if v is not None and math.isfinite(float(v))
    ]
    finite = [row["value"] for row in rows]
    wide = bool(finite) and min(finite) > 0 and max(finite) > 100 * min(finite)
    y = alt.Y(
        "value:Q",
        title=title + (" (log scale)" if wide else ""),
        scale=alt.Scale(type="log" if wide else "linear", zero=False),
    )
    y = y.axis(tickCount=4, domain=False, ticks=False, format=".3~g", offset=8)
    x = alt.X("step:Q", title="step, from noise to picture", scale=alt.Scale(domain=[1, max(len(values), 2)], nice=False))
    x = x.axis(grid=False, tickCount=6, tickMinStep=1, format="d")
    base = alt.Chart(alt.InlineData(values=rows)).encode(x=x, y=y)
    line = base.mark_line(color=COLOURS["soft"], strokeWidth=1.5)
    dense = len(values) > 120
    computed = base.transform_filter("!datum.reused").mark_point(
        color=COLOURS["muted"], filled=True, size=5 if dense else 14, opacity=1
    )
    reused = base.transform_filter("datum.reused").mark_point(
        color=COLOURS["accent"], filled=True, size=12 if dense else 52, opacity=1
    )
    return alt.layer(line, computed, reused).properties(width=width, height=height)
