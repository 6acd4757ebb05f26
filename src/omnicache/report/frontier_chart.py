"""Speed against likeness of many settings, with the frontier; and of one method, small."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from omnicache.report._labels import Wanted, place_labels
from omnicache.report._need import need
from omnicache.report._svg import COLOURS
from omnicache.report.verdict import ALIKE
from omnicache.words import SAME

TICKS = (0.5, 0.75, 1, 1.5, 2, 3, 4, 6, 8, 12, 16)
LOST = ("worse", "slower")


def frontier_chart(rows: Sequence[dict[str, Any]], width: int = 880, height: int = 460, chosen: str = "") -> Any:
    """An altair chart of all settings: PSNR over speedup, on a log scale.

    Fewer steps are a dashed line. Settings that lose to them are hollow, what nothing beats is joined by a line and named; the one
    whose label is ``chosen`` has a ring around it.
    """
    points = drawn(rows)
    frame = Frame.around(points, width, height)
    caches, fewer = [r for r in points if r["method"] != "fewer-steps"], [r for r in points if r["method"] == "fewer-steps"]
    edge = sorted((row for row in points if row["frontier"]), key=speed)
    layers = [*frame.bar(), *frame.dashed(fewer)]
    layers.append(
        frame.chart(edge).mark_line(color=COLOURS["accent"], strokeWidth=1.5, opacity=0.6).encode(x=frame.x(), y=frame.y())
    )
    for lost in (True, False):
        some = [row for row in caches if (row["verdict"] in LOST) == lost and not row["frontier"]]
        layers.append(frame.dots(some, "warn" if lost else "soft", hollow=lost, size=36))
    layers.append(frame.dots([row for row in edge if row["method"] != "fewer-steps"], "accent", hollow=False, size=90))
    picked = [row for row in points if row["label"] == chosen]
    layers.append(frame.dots(picked, "path-2", hollow=True, size=260))
    layers.append(frame.dots(picked, "path-2", hollow=False, size=90))
    layers += _names(frame, points, edge, fewer, chosen)
    return need("altair").layer(*layers).properties(width=width, height=height)


def frontier_key(rows: Sequence[dict[str, Any]], chosen: str = "") -> list[tuple[str, str]]:
    """What the marks of :func:`frontier_chart` mean, of those that are in it: the class of each, and words."""
    points = drawn(rows)
    caches = [row for row in points if row["method"] != "fewer-steps"]
    low, high = Frame.around(points, 1, 1).ys
    found = {
        "edge": ("nothing is both faster and closer", [row for row in caches if row["frontier"]]),
        "others": ("another setting", [row for row in caches if not row["frontier"] and row["verdict"] not in LOST]),
        "hollow": (
            "worse than fewer steps, or slower than no cache",
            [row for row in caches if not row["frontier"] and row["verdict"] in LOST],
        ),
        "dash": ("fewer steps", len(points) > len(caches)),
        "ring": ("the plan of this page", [row for row in points if row["label"] == chosen]),
        "alike": (alike_line(), low < ALIKE < high),
    }
    return [(kind, words) for kind, (words, there) in found.items() if there]


def drawn(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The settings that have a place on the chart: not the one that caches nothing, nor those that are identical."""
    return [row for row in rows if row["method"] != "none" and row["psnr"]["mean"] < SAME]


def same(rows: Sequence[dict[str, Any]]) -> str:
    """A sentence on the settings that are left out, as they are identical; "" if there are none."""
    left = [row["label"] for row in rows if row["method"] != "none" and row["psnr"]["mean"] >= SAME]
    return f"Identical to the uncached, so not drawn: {', '.join(left)}." if left else ""


def alike_line() -> str:
    """What the line at :data:`ALIKE` says."""
    return f"from {ALIKE:g} dB on hard to tell apart"


def method_chart(name: str, rows: Sequence[dict[str, Any]], width: int = 240, height: int = 130) -> Any:
    """An altair chart of one method's settings and of fewer steps, both as lines; the axes are the same for all methods."""
    points = drawn(rows)
    frame = Frame.around(points, width, height)
    mine = sorted((row for row in points if row["method"] == name), key=speed)
    layers = [*frame.dashed([row for row in points if row["method"] == "fewer-steps"])]
    layers.append(frame.chart(mine).mark_line(color=COLOURS["ink"], strokeWidth=1.5, opacity=0.5).encode(x=frame.x(), y=frame.y()))
    for lost in (True, False):
        some = [row for row in mine if (row["verdict"] in LOST) == lost]
        layers.append(frame.dots(some, "warn" if lost else "accent", hollow=lost, size=44))
    return need("altair").layer(*layers).properties(width=width, height=height)


def speed(row: dict[str, Any]) -> float:
    return row["speedup"]["median"]


@dataclass(frozen=True)
class Frame:
    """The axes, and where they put a point."""

    xs: tuple[float, float]
    ys: tuple[float, float]
    width: int
    height: int

    @classmethod
    def around(cls, rows: Sequence[dict[str, Any]], width: int, height: int) -> Frame:
        xs, ys = [1.0, *map(speed, rows)], [row["psnr"]["mean"] for row in rows] or [ALIKE]
        low, high = min(xs) / 1.06, max(xs) * 1.08
        pad = 0.06 * ((max(ys) - min(ys)) or 1.0)
        return cls((round(low, 4), round(high, 4)), (round(min(ys) - pad, 3), round(max(ys) + pad, 3)), width, height)

    def chart(self, rows: Sequence[dict[str, Any]]) -> Any:
        alt = need("altair")
        return alt.Chart(alt.InlineData(values=[{"x": speed(row), "y": row["psnr"]["mean"]} for row in rows]))

    def x(self) -> Any:
        alt = need("altair")
        small = self.width < 280
        ticks = [t for t in TICKS if self.xs[0] <= t <= self.xs[1] and not (self.width < 500 and t in (0.5, 0.75, 1.5, 12))]
        axis = alt.Axis(grid=False, values=ticks, format="~g", labelExpr="datum.value + '×'")
        scale = alt.Scale(type="log", domain=list(self.xs), nice=False)
        return alt.X("x:Q", title=None if small else "speedup (log scale)", axis=axis, scale=scale)

    def y(self) -> Any:
        alt = need("altair")
        small = self.width < 280
        axis = alt.Axis(tickCount=3 if small else 6, domain=False, ticks=False)
        title = None if small else "PSNR to the uncached (dB)"
        return alt.Y("y:Q", title=title, axis=axis, scale=alt.Scale(domain=list(self.ys), nice=False, zero=False))

    def place(self, x: float, y: float) -> tuple[float, float]:
        """In pixels from the upper left corner."""
        across = math.log(x / self.xs[0]) / math.log(self.xs[1] / self.xs[0])
        return across * self.width, (self.ys[1] - y) / (self.ys[1] - self.ys[0]) * self.height

    def dots(self, rows: Sequence[dict[str, Any]], token: str, hollow: bool, size: int) -> Any:
        fill = COLOURS["ground"] if hollow else COLOURS[token]
        mark = self.chart(rows).mark_point(color=COLOURS[token], fill=fill, size=size, opacity=1, strokeWidth=1.6)
        return mark.encode(x=self.x(), y=self.y())

    def dashed(self, rows: Sequence[dict[str, Any]]) -> list[Any]:
        chart = self.chart(sorted(rows, key=speed))
        line = chart.mark_line(color=COLOURS["soft"], strokeWidth=2, strokeDash=[5, 4])
        dots = chart.mark_point(color=COLOURS["soft"], shape="diamond", filled=True, size=30 if self.width > 280 else 14, opacity=1)
        return [mark.encode(x=self.x(), y=self.y()) for mark in (line, dots)]

    def bar(self) -> list[Any]:
        """The line from which on pictures are hard to tell apart; the key says so, where no point can lie on the words."""
        if not self.ys[0] < ALIKE < self.ys[1]:
            return []
        alt = need("altair")
        chart = alt.Chart(alt.InlineData(values=[{"y": ALIKE}]))
        return [chart.mark_rule(color=COLOURS["accent"], opacity=0.6, strokeWidth=1.5).encode(y=self.y())]


def _names(
    frame: Frame,
    points: Sequence[dict[str, Any]],
    edge: Sequence[dict[str, Any]],
    fewer: Sequence[dict[str, Any]],
    chosen: str,
) -> list[Any]:
    """The frontier's labels, clear of points and lines, and one for the dashed line."""
    alt = need("altair")
    at = {row["label"]: frame.place(speed(row), row["psnr"]["mean"]) for row in points}
    wanted: list[Wanted] = []
    for row in edge:
        if row["method"] != "fewer-steps":
            x = at[row["label"]][0]
            text = row["method"] if frame.width < 500 else row["label"]
            around = 6 if row["label"] == chosen else 0
            wanted.append((at[row["label"]], (x - around, x + around), text, "accent"))
    if fewer:
        end = at[max(fewer, key=speed)["label"]]
        wanted.append((end, (end[0], end[0]), "fewer steps", "muted"))
    clear = list(at.values())
    for line in (edge, sorted(fewer, key=speed)):
        for a, b in pairwise([at[row["label"]] for row in line]):
            clear += [(a[0] + (b[0] - a[0]) * k / 12, a[1] + (b[1] - a[1]) * k / 12) for k in range(12)]
    if frame.ys[0] < ALIKE < frame.ys[1]:
        level = frame.place(1, ALIKE)[1]
        clear += [(16.0 * k, level) for k in range(frame.width // 16)]
    size = 11 if frame.width < 500 else 12
    layers = []
    for left, top, align, text, token in place_labels(wanted, clear, [], size, frame.width, frame.height):
        chart = alt.Chart(alt.InlineData(values=[{"text": text}]))
        mark = chart.mark_text(align=align, baseline="middle", color=COLOURS[token], fontSize=size)
        layers.append(mark.encode(x=alt.value(left), y=alt.value(top), text="text:N"))
    return layers
