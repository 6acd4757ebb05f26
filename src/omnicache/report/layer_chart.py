"""Layers and steps: what a plan computes where, how far it strays, what each cell costs, and the time that each layer takes."""

from __future__ import annotations

import math
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
    shade = shaded("w", "error for each second saved", (low, max(high, low * 1.01)), ".2~r", logarithmic=True)
    x, y = _places(steps, len(rows))
    mark = alt.Chart(alt.InlineData(values=data)).mark_rect(color=COLOURS["heat"], stroke=COLOURS["ground"], strokeWidth=0.5)
    heat = mark.encode(x=x, y=y, opacity=shade)
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


def layer_map(
    values: list[list[float]], title: str, what: str = "layer", logarithmic: bool = False, width: int = 430, height: int = 260
) -> Any:
    """An altair heat map of ``values`` by layer and step, from light to dark; what is no number is left blank.

    Args:
        title: what they are.
        what: of what a row is, "layer".
        logarithmic: whether colours are on a log scale, and zeros as light as the least of the others; else they go from 0 to 1.
    """
    alt = need("altair")
    cells = [(n, t, float(v)) for n, row in enumerate(values) for t, v in enumerate(row) if math.isfinite(float(v))]
    known = sorted(v for _, _, v in cells if v > 0) or [1.0]
    low, high = (known[len(known) // 50], known[-1 - len(known) // 50]) if logarithmic else (0.0, 1.0)
    high = max(high, low * 1.01)
    data = [{"layer": n, "step": t + 1, "v": max(v, low)} for n, t, v in cells]
    shade = shaded("v", title, (low, high), ".0%", logarithmic)
    x, y = _places(max(map(len, values), default=0), len(values), what)
    side = min(width / max(map(len, values), default=1), height / max(len(values), 1))
    edge = 0.5 if side > 4 else 0
    mark = alt.Chart(alt.InlineData(values=data)).mark_rect(color=COLOURS["heat"], stroke=COLOURS["ground"], strokeWidth=edge)
    return mark.encode(x=x, y=y, opacity=shade).properties(width=width, height=height)


def shaded(field: str, title: str | None, ends: tuple[float, float], shown: str, logarithmic: bool = False) -> Any:
    """Shades of one colour, from faint to full, so that a heat map lies on the page's ground in light and in dark.

    Args:
        ends: the values of the faintest and of the fullest.
        shown: the format of the numbers in the key.
    """
    alt, (low, high) = need("altair"), ends
    values = [low, (low * high) ** 0.5, high] if logarithmic else [low + (high - low) * share for share in (0, 0.25, 0.5, 0.75, 1)]
    scale = alt.Scale(type="log" if logarithmic else "linear", domain=[low, high], range=[0.07, 1], clamp=True)
    worded = title + (", log scale" if logarithmic else "") if title else None
    return alt.Opacity(f"{field}:Q", title=worded, scale=scale).legend(
        orient="bottom",
        direction="horizontal",
        symbolType="square",
        symbolFillColor=COLOURS["heat"],
        symbolStrokeWidth=0,
        symbolSize=180,
        titleLimit=400,
        values=values,
        format=shown,
    )


def _places(steps: int, layers: int, what: str = "layer") -> tuple[Any, Any]:
    """The axes: steps to the right, layers downwards."""
    alt = need("altair")
    x = alt.X("step:O", title="step, from noise to picture", scale=alt.Scale(domain=list(range(1, steps + 1)), paddingInner=0))
    y = alt.Y("layer:O", title=what, scale=alt.Scale(domain=list(range(layers)), paddingInner=0))
    x = x.axis(ticks=False, domain=False, labelAngle=0, values=_some(steps, 1))
    return x, y.axis(ticks=False, domain=False, values=_some(layers, 0))


def _some(count: int, first: int) -> list[int]:
    """About ten of the numbers from ``first`` on, for an axis."""
    every = max(1, -(-count // 12))
    return list(range(first, count + first, every))
