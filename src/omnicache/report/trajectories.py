"""The paths of several inputs and seeds from noise to picture, in three dimensions."""

from __future__ import annotations

import re
from typing import Any

from omnicache.report._need import need
from omnicache.report._svg import COLOURS

HUES = tuple(colour for token, colour in COLOURS.items() if token.startswith("path-"))
MOST = 64  # paths drawn
DOTS = 120  # places drawn of each


def trajectories(points: list[Any], labels: list[str], inches: float = 5.0, equal: bool = False) -> Any:
    """A matplotlib figure; paths of one input share a colour. ``equal``: all three axes have one scale, so that distances count."""
    need("mpl_toolkits.mplot3d")
    figure = need("matplotlib.figure").Figure(figsize=(inches, inches), dpi=200)
    figure.patch.set_alpha(0)
    axes: Any = figure.add_axes((0, 0, 1, 1), projection="3d")
    axes.patch.set_alpha(0)
    colours = path_colours(labels)
    for path, label in list(zip(points, labels, strict=False))[:MOST]:
        every = max(1, -(-len(path) // DOTS))
        kept = [*path[:-1:every], path[-1]]
        x, y, z = ([float(place[axis]) for place in kept] for axis in range(3))
        colour = colours[_input(label)]
        axes.plot(x, y, z, color=colour, linewidth=1.3, alpha=0.85)
        axes.plot(x[-1:], y[-1:], z[-1:], "o", color=colour, markersize=5, markeredgecolor=COLOURS["ground"], markeredgewidth=0.8)
        axes.plot(x[:1], y[:1], z[:1], "o", color=COLOURS["ground"], markersize=4.5, markeredgecolor=colour, markeredgewidth=1.2)
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.pane.fill = False
        axis.pane.set_edgecolor(COLOURS["line"])
        axis.line.set_color(COLOURS["line"])
        axis._axinfo["grid"].update(color=COLOURS["line"], linewidth=0.6)
        axis.set_ticklabels([])
        axis.set_tick_params(length=0, color=COLOURS["line"])
    axes.view_init(elev=22, azim=-58)
    axes.set_box_aspect((1, 1, 0.85), zoom=1.12)
    if equal:
        axes.set_aspect("equal", adjustable="datalim")
    return figure


def path_colours(labels: list[str]) -> dict[str, str]:
    """The colour of each input; seeds of one input, as in ``"rocket, seed 3"``, share theirs."""
    return {name: HUES[i % len(HUES)] for i, name in enumerate(dict.fromkeys(map(_input, labels)))}


def _input(label: str) -> str:
    return re.sub(r"[\s,;/|:#·-]*(seed)?[\s=:#]*\d+$", "", label, flags=re.IGNORECASE) or label
