"""Speed against likeness of every contender's settings, with the edge of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from omnicache.measure.bench.frontier import frontier
from omnicache.report._labels import place_labels
from omnicache.report._need import need
from omnicache.report._svg import COLOURS
from omnicache.report.frontier_chart import Frame, speed

BELOW, ABOVE = 8.0, 22.0
"""dB below the lowest goal and above the highest at which the drawing ends."""


def peers_chart(result: Mapping[str, Any], colours: Mapping[str, str], width: int = 880, height: int = 480) -> Any:
    """An altair chart of what was measured on the tuning inputs: PSNR over speedup, on a log scale.

    Each contender has a colour (names of :data:`COLOURS`), a dot for each setting, and a line that joins those which none of its
    own beats. What was chosen for a goal has a ring. Settings below and above the drawing are left out.
    """
    low, high = min(result["goals"]) - BELOW, max(result["goals"]) + ABOVE
    rows = [row for row in result["rows"] if row["state"] == "measured" and low <= row["psnr"]["mean"] <= high]
    alt, frame = need("altair"), _frame(rows, result["goals"], width, height)
    layers = _goals(frame, result["goals"])
    picked = {(one["contender"], one["label"]) for one in result["chosen"] if one["label"] is not None}
    for name, token in colours.items():
        mine = [row for row in rows if row["contender"] == name]
        judged = name == result["judged"]
        edge = frontier({row["label"]: (speed(row), row["psnr"]["mean"]) for row in mine if speed(row) >= 1})
        line = [next(row for row in mine if row["label"] == label) for label in edge]
        x, y, colour = frame.x(), frame.y(), COLOURS[token]
        layers.append(frame.chart(line).mark_line(color=colour, strokeWidth=1.6, opacity=0.75).encode(x=x, y=y))
        size = 130 if judged else 26
        dots = frame.chart(mine).mark_point(color=colour, fill=colour, size=size, opacity=1 if judged else 0.5, strokeWidth=0)
        layers.append(dots.encode(x=x, y=y))
        ring = frame.chart([row for row in mine if (name, row["label"]) in picked and not judged])
        layers.append(ring.mark_point(color=colour, fill=COLOURS["ground"], size=80, opacity=1, strokeWidth=2.2).encode(x=x, y=y))
    layers += _named(frame, [row for row in rows if row["contender"] == result["judged"]], rows, result["goals"])
    return alt.layer(*layers).properties(width=width, height=height)


def _frame(rows: Sequence[Mapping[str, Any]], goals: Sequence[float], width: int, height: int) -> Frame:
    xs = [1.0, *(speed(dict(row)) for row in rows)]
    ys = [*goals, *(row["psnr"]["mean"] for row in rows)]
    top = max(ys)
    return Frame(
        (max(round(min(xs) / 1.06, 4), 0.7), round(max(xs) * 1.1, 4)), (min(goals) - BELOW, round(top + 1, 2)), width, height
    )


def _goals(frame: Frame, goals: Sequence[float]) -> list[Any]:
    alt = need("altair")
    values = [{"y": goal, "text": f"{goal:g} dB"} for goal in goals]
    chart = alt.Chart(alt.InlineData(values=values))
    rule = chart.mark_rule(color=COLOURS["soft"], strokeDash=[3, 4]).encode(y=frame.y())
    note = chart.mark_text(align="right", baseline="bottom", dy=-3, dx=-2, color=COLOURS["muted"], fontSize=11)
    return [rule, note.encode(x=alt.value(frame.width), y=frame.y(), text="text:N")]


def _named(frame: Frame, ours: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]], goals: Sequence[float]) -> list[Any]:
    alt, made = need("altair"), []
    places = [frame.place(speed(dict(row)), row["psnr"]["mean"]) for row in rows]
    wanted = []
    for row in ours:
        at = frame.place(speed(dict(row)), row["psnr"]["mean"])
        wanted.append(
            (at, (at[0], at[0]), f"tuned, {row['options']['goal']:g} dB" if "goal" in row["options"] else "tuned", "accent")
        )
    size = 11 if frame.width < 500 else 12
    lines = [frame.place(1, goal)[1] for goal in goals]
    taken = [(frame.width - 40.0, y - 15, float(frame.width), y - 2) for y in lines]  # what the goals' lines are called
    for left, top, align, text, token in place_labels(wanted, places, taken, size, frame.width, frame.height):
        chart = alt.Chart(alt.InlineData(values=[{"text": text}]))
        mark = chart.mark_text(align=align, baseline="middle", color=COLOURS[token], fontSize=size, fontWeight=600)
        made.append(mark.encode(x=alt.value(left), y=alt.value(top), text="text:N"))
    return made
