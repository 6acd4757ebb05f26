"""Speed against closeness to the uncached pictures."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from omnicache.report._labels import Wanted, place_labels
from omnicache.report._need import need
from omnicache.report._svg import COLOURS
from omnicache.report.fewer_steps import FewerSteps
from omnicache.report.frontier_chart import alike_line
from omnicache.report.run import Run
from omnicache.report.verdict import ALIKE
from omnicache.words import SAME


def speed_chart(runs: list[Run], best: Run | None, width: int = 880, height: int = 420) -> Any | None:
    """An altair chart of PSNR over speedup, or None when no run has both.

    Fewer steps are a dashed line, the methods they beat hollow points, the best method a larger one.
    """
    points = [point for point in map(_point, runs) if point]
    if not points:
        return None
    frame = _Frame.around(points, width, height)
    reference = FewerSteps(runs)
    line = sorted((p for p in points if p.run.method == "fewer-steps"), key=lambda p: p.x)
    others = [p for p in points if p.run.method != "fewer-steps"]
    kinds = {p.run.name: _kind(p.run, best, reference) for p in others}
    layers = [*_bar(frame), *_line(frame, line), *_points(frame, others, kinds), *_names(frame, others, kinds, line)]
    return need("altair").layer(*layers).properties(width=width, height=height)


def speed_key(runs: list[Run], best: Run | None) -> list[tuple[str, str]]:
    """What the marks of :func:`speed_chart` mean, of those that are in it: the class of each, and words."""
    points = [point for point in map(_point, runs) if point]
    kinds = {_kind(p.run, best, FewerSteps(runs)) for p in points if p.run.method != "fewer-steps"}
    low, high = _Frame.around(points, 1, 1).ys
    found = {
        "edge": ("the fastest that keeps them", "best" in kinds),
        "method": ("another method", "method" in kinds),
        "hollow": ("worse than fewer steps", "beaten" in kinds),
        "none": ("without a cache", "reference" in kinds),
        "dash": ("fewer steps", any(p.run.method == "fewer-steps" for p in points)),
        "alike": (alike_line(), low < ALIKE < high),
    }
    return [(kind, words) for kind, (words, there) in found.items() if there]


FAR = 1.2
"""Times the largest speedup up to which spreads are drawn."""


@dataclass(frozen=True)
class _Point:
    run: Run
    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True)
class _Frame:
    xs: tuple[float, float]
    ys: tuple[float, float]
    width: int
    height: int

    @classmethod
    def around(cls, points: list[_Point], width: int, height: int) -> _Frame:
        most = FAR * max(p.x for p in points)  # one repeat that was disturbed would else take most of the room
        xs = [1.0, *(p.low for p in points), *(min(p.high, most) for p in points)]
        return cls(_padded(xs, 0.06), _padded([p.y for p in points], 0.10), width, height)

    def chart(self, rows: list[dict[str, Any]]) -> Any:
        alt = need("altair")
        return alt.Chart(alt.InlineData(values=rows))

    def x(self, field: str = "x") -> Any:
        alt = need("altair")
        axis = alt.Axis(grid=False, tickCount=6, format=".2~f")
        scale = alt.Scale(domain=list(self.xs), nice=False, zero=False)
        return alt.X(f"{field}:Q", title="speedup (×)", axis=axis, scale=scale)

    def y(self) -> Any:
        alt = need("altair")
        axis = alt.Axis(tickCount=5, domain=False, ticks=False)
        scale = alt.Scale(domain=list(self.ys), nice=False, zero=False)
        return alt.Y("y:Q", title="PSNR to the uncached (dB)", axis=axis, scale=scale)

    def place(self, x: float, y: float) -> tuple[float, float]:
        (x0, x1), (y0, y1) = self.xs, self.ys
        return (x - x0) / (x1 - x0) * self.width, (y1 - y) / (y1 - y0) * self.height


LOOKS = {"method": "ink", "best": "accent", "beaten": "warn", "reference": "muted"}


def _point(run: Run) -> _Point | None:
    if run.speedup is None or run.psnr is None or run.psnr >= SAME:
        return None
    low, high = run.spread or (run.speedup, run.speedup)
    return _Point(run, run.speedup, run.psnr, low, high)


def _kind(run: Run, best: Run | None, reference: FewerSteps) -> str:
    if not run.is_cache:
        return "reference"
    return "beaten" if reference.beats(run) else "best" if best and run.name == best.name else "method"


def _bar(frame: _Frame) -> list[Any]:
    if not frame.ys[0] < ALIKE < frame.ys[1]:
        return []
    return [frame.chart([{"y": ALIKE}]).mark_rule(color=COLOURS["accent"], opacity=0.6, strokeWidth=1.5).encode(y=frame.y())]


def _line(frame: _Frame, line: list[_Point]) -> list[Any]:
    if not line:
        return []
    chart = frame.chart([{"x": p.x, "y": p.y} for p in line])
    dashes = chart.mark_line(color=COLOURS["soft"], strokeWidth=2, strokeDash=[5, 4])
    dots = chart.mark_point(color=COLOURS["soft"], shape="diamond", filled=True, size=50, opacity=1)
    return [mark.encode(x=frame.x(), y=frame.y()) for mark in (dashes, dots)]


def _points(frame: _Frame, points: list[_Point], kinds: dict[str, str]) -> list[Any]:
    layers = []
    for kind, token in LOOKS.items():
        rows = [{"x": p.x, "y": p.y, "low": p.low, "high": min(p.high, frame.xs[1])} for p in points if kinds[p.run.name] == kind]
        if rows:
            colour, chart = COLOURS[token], frame.chart(rows)
            rule = chart.mark_rule(color=colour, opacity=0.5, strokeWidth=1.5)
            layers.append(rule.encode(x=frame.x("low"), x2="high:Q", y=frame.y()))
            fill = COLOURS["ground"] if kind == "beaten" else colour
            size = 120 if kind == "best" else 80
            dot = chart.mark_point(color=colour, fill=fill, size=size, opacity=1, strokeWidth=2)
            layers.append(dot.encode(x=frame.x(), y=frame.y()))
    return layers


def _names(frame: _Frame, points: list[_Point], kinds: dict[str, str], line: list[_Point]) -> list[Any]:
    alt = need("altair")
    narrow = frame.width < 500
    wanted: list[Wanted] = []
    for p in sorted(points, key=lambda p: (not p.run.is_cache, -p.y)):
        ends = (frame.place(p.low, p.y)[0], frame.place(min(p.high, frame.xs[1]), p.y)[0])
        wanted.append((frame.place(p.x, p.y), ends, _short(p.run.name, 26 if narrow else 44), LOOKS[kinds[p.run.name]]))
    if line:
        end = frame.place(line[-1].x, line[-1].y)
        wanted.append((end, (end[0], end[0]), "fewer steps", "muted"))
    clear = [frame.place(p.low + (p.high - p.low) * k / 6, p.y) for p in points for k in range(7)]
    clear += [frame.place(p.x, p.y) for p in (*points, *line)]
    clear += [frame.place(a.x + (b.x - a.x) * k / 24, a.y + (b.y - a.y) * k / 24) for a, b in pairwise(line) for k in range(24)]
    if frame.ys[0] < ALIKE < frame.ys[1]:
        level = frame.place(0, ALIKE)[1]
        clear += [(16.0 * k, level) for k in range(frame.width // 16)]
    size = 11 if narrow else 12
    layers = []
    for left, top, align, text, token in place_labels(wanted, clear, [], size, frame.width, frame.height):
        mark = frame.chart([{"text": text}]).mark_text(align=align, baseline="middle", color=COLOURS[token], fontSize=size)
        layers.append(mark.encode(x=alt.value(left), y=alt.value(top), text="text:N"))
    return layers


def _padded(values: list[float], share: float) -> tuple[float, float]:
    low, high = min(values), max(values)
    pad = share * ((high - low) or 1.0)
    return round(low - pad, 4), round(high + pad, 4)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
