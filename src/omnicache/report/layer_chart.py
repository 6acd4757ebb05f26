"""A plan that decides layer by layer: what each cell costs, which are reused, and the time that each layer takes."""

from __future__ import annotations

from typing import Any

from omnicache.report._need import need
from omnicache.report._svg import COLOURS

CHOSEN = COLOURS["path-2"]


def layer_chart(weight: list[list[float]], rows: list[str], width: int = 430, height: int = 220) -> Any:
    """An altair heat map of ``weight`` by layer and step on a log scale, with a dot at each reused cell.

    Cells of no weight (steps at which all layers are computed) are left blank.
    """
    alt = need("altair")
    steps = max(map(len, rows), default=0)
    data = [{"layer": n, "step": t + 1, "w": float(v)} for n, row in enumerate(weight) for t, v in enumerate(row) if v > 0]
    dots = [{"layer": n, "step": t + 1} for n, row in enumerate(rows) for t, mark in enumerate(row) if mark == "."]
    ordered = sorted(row["w"] for row in data) or [1.0]
    low, high = ordered[len(ordered) // 50], ordered[-1 - len(ordered) // 50]
    middle = (low * high) ** 0.5
    scale = alt.Scale(type="log", domain=[low, middle, max(high, low * 1.01)], range=["#eef0e6", "#7fb8a4", "#0b4a45"], clamp=True)
    colour = alt.Color("w:Q", title="error for each second saved, log scale", scale=scale)
    colour = colour.legend(
        orient="bottom",
        direction="horizontal",
        gradientLength=220,
        gradientThickness=8,
        titleLimit=400,
        format=".1~g",
        values=[low, middle, high],
    )
    x = alt.X("step:O", title="step, from noise to picture", scale=alt.Scale(domain=list(range(1, steps + 1)), paddingInner=0))
    x = x.axis(ticks=False, domain=False, labelAngle=0, values=_some(steps, 1))
    y = alt.Y("layer:O", title="layer", scale=alt.Scale(domain=list(range(len(rows))), paddingInner=0))
    y = y.axis(ticks=False, domain=False, values=_some(len(rows), 0))
    heat = (
        alt.Chart(alt.InlineData(values=data)).mark_rect(stroke=COLOURS["ground"], strokeWidth=0.5).encode(x=x, y=y, color=colour)
    )
    side = min(width / max(steps, 1), height / max(len(rows), 1))
    dot = alt.Chart(alt.InlineData(values=dots)).mark_point(
        shape="circle",
        filled=True,
        color=CHOSEN,
        opacity=1,
        size=max(4.0, (0.45 * side) ** 2),
        stroke=COLOURS["ground"],
        strokeWidth=0.6,
    )
    return alt.layer(heat, dot.encode(x=x, y=y)).properties(width=width, height=height)


def time_chart(lat: list[float], saved: list[float], width: int = 430, height: int = 220) -> Any:
    """An altair bar chart of the milliseconds of each layer: what reuse saves, and what is left."""
    alt = need("altair")
    data = []
    for n, (whole, gain) in enumerate(zip(lat, saved, strict=True)):
        data += [{"layer": n, "part": 1, "ms": 1e3 * gain}, {"layer": n, "part": 0, "ms": 1e3 * max(whole - gain, 0.0)}]
    x = alt.X("layer:O", title="layer", scale=alt.Scale(domain=list(range(len(lat)))))
    x = x.axis(ticks=False, labelAngle=0, values=_some(len(lat), 0))
    y = alt.Y("ms:Q", title="milliseconds", stack=True).axis(tickCount=4, domain=False, ticks=False, offset=8)
    colour = alt.Color("part:N", legend=None, scale=alt.Scale(domain=[1, 0], range=[COLOURS["accent"], COLOURS["soft"]]))
    bars = alt.Chart(alt.InlineData(values=data)).mark_bar().encode(x=x, y=y, color=colour, order=alt.Order("part:Q"))
    return bars.properties(width=width, height=height)


def _some(count: int, first: int) -> list[int]:
    """About ten of the numbers from ``first`` on, for an axis."""
    every = max(1, -(-count // 12))
    return list(range(first, count + first, every))
