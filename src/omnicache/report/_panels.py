"""What a calibration found, picture by picture."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

from omnicache.errors import OmniCacheError
from omnicache.report._need import need
from omnicache.report._svg import COLOURS, inline, vega_png, vega_svg
from omnicache.report.layer_chart import CHOSEN, layer_chart, time_chart
from omnicache.report.similarity_chart import similarity_chart
from omnicache.report.step_chart import step_chart
from omnicache.report.trajectories import path_colours, trajectories


@dataclass(frozen=True)
class Panel:
    """One picture with its words; drawn as SVG for a page or PNG for a file."""

    name: str
    title: str
    text: str
    key: dict[str, str]
    alt: str
    drawing: Any

    def svg(self) -> str:
        if not hasattr(self.drawing, "savefig"):
            return inline(vega_svg(self.drawing), self.name, self.alt)
        return inline(self._saved("svg").decode(), self.name, self.alt)

    def png(self) -> bytes:
        return self._saved("png") if hasattr(self.drawing, "savefig") else vega_png(self.drawing)

    def _saved(self, kind: str) -> bytes:
        out = io.BytesIO()
        with need("matplotlib").rc_context({"svg.hashsalt": "omnicache", "path.simplify": True}):
            extra = {"metadata": {"Date": None}} if kind == "svg" else {}
            self.drawing.savefig(out, format=kind, transparent=True, bbox_inches="tight", pad_inches=0.05, **extra)
        return out.getvalue()


def panels(calibration: dict[str, Any]) -> list[Panel]:
    """The pictures of a calibration with their words, drawn when asked for as SVG or PNG."""
    if "rows" in calibration:
        return _by_layer(calibration)
    if "left" in calibration:
        return _by_path(calibration)
    for key in ("points", "labels", "similarity", "curvature", "gamma", "schedule"):
        if key not in calibration:
            raise OmniCacheError(f"the calibration has no {key!r}; calibrate again with this version")
    labels = [str(label) for label in calibration["labels"]]
    schedule = str(calibration["schedule"])
    colours = path_colours(labels)
    reused = sum(kind != "#" for kind in schedule)
    chosen = f"{reused} of {len(schedule)} steps are reused"
    marks = {"reused": COLOURS["accent"], "computed": COLOURS["muted"]}
    points, similarity = calibration["points"], calibration["similarity"]
    apart = [float(v) for i, row in enumerate(similarity) for j, v in enumerate(row) if i != j]
    alike = f" The least alike pair scores {min(apart):.2f}, the mean pair {sum(apart) / len(apart):.2f}." if apart else ""
    shown = [
        Panel(
            "paths",
            "Paths from noise to picture",
            "The steps of each run, projected to three dimensions. An open circle is the noise it starts from, a full one "
            "the picture it ends in.",
            colours if 1 < len(colours) <= 8 else {},
            f"{len(points)} sampling paths in three dimensions",
            trajectories(points, labels),
        ),
        Panel(
            "similarity",
            "How alike the paths are",
            f"Similarity of every pair of paths, 1 for the same shape.{alike}",
            {},
            f"Heat map of the similarity of {len(labels)} paths.{alike}",
            similarity_chart(similarity, labels),
        ),
    ]
    quantities = [
        (
            "curvature",
            "Curvature over the steps",
            "How sharply the path bends at each step: the paper's reason to reuse one.",
        ),
        (
            "error",
            "What one reuse costs in the end",
            "The error that a single reuse at this step leaves in the final latent: what this plan was chosen by.",
        ),
        ("gamma", "Gamma over the steps", "The share of the noise measured before a reuse that is subtracted at it."),
        ("sigma", "Sigma over the steps", "Sigma of each step, as the calibration recorded it."),
    ]
    for name, title, text in quantities:
        if calibration.get(name) is not None:
            chart = step_chart(list(calibration[name]), schedule, name)
            shown.append(Panel(name, title, f"{text}", marks, f"{title}; {chosen}", chart))
    return shown


def _by_path(calibration: dict[str, Any]) -> list[Panel]:
    """The pictures of a plan whose computed steps are a shortest path through measured errors."""
    schedule, left, tried = str(calibration["schedule"]), list(calibration["left"]), sorted(calibration["tried"].values())
    if not any(left):
        return []
    best, *others = (f"{error:.2%}" for error in tried)
    drawn = f"Fitted and drawn, {best} of the final latents was left"
    drawn += f", and {' and '.join(others)} with the other schedule{'s' * (len(others) > 1)} that looked best" if others else ""
    grown = [float(g) for g in calibration["growth"][1:]]
    marks = {"reused": COLOURS["accent"], "computed": COLOURS["muted"]}
    return [
        Panel(
            "left",
            "What reuse costs",
            "How far the latents after each reused step are from what the two computed steps before it tell, as much as that grows "
            f"to by the end. The computed steps are those for which the ends of these stretches add up to the least. {drawn}.",
            {"reused": COLOURS["accent"]},
            f"Error at the end that each reused step leaves, {max(left):.2%} at most",
            step_chart([100 * e if e > 0 else None for e in left], schedule, "error at the end (%)"),
        ),
        Panel(
            "growth",
            "What errors grow to",
            "How many times as large an error after each step is by the end. Where that is much, more steps are computed.",
            marks,
            f"Growth of errors, from {grown[0]:.2g} times after the first step to {grown[-1]:.2g} after the last",
            step_chart(grown, schedule, "growth"),
        ),
    ]


def _by_layer(calibration: dict[str, Any]) -> list[Panel]:
    """The pictures of a plan that decides layer by layer."""
    for key in ("rows", "weight", "lat", "saved"):
        if key not in calibration:
            raise OmniCacheError(f"the calibration has no {key!r}; calibrate again with this version")
    rows = [str(row) for row in calibration["rows"]]
    reused = sum(row.count(".") for row in rows)
    chosen = f"{reused} of {sum(map(len, rows))} cells are reused"
    return [
        Panel(
            "weight",
            "What reusing each layer costs for each second saved",
            "Error that reusing one layer at one step leaves in the final latent, for each second that it saves; dots are the "
            f"cells that the plan reuses. {chosen}.",
            {"reused": CHOSEN},
            f"Heat map over {len(rows)} layers and {len(rows[0])} steps; {chosen}",
            layer_chart([list(row) for row in calibration["weight"]], rows),
        ),
        Panel(
            "time",
            "Time of each layer",
            "Milliseconds of a call of the denoiser, and what is left of them where the layer is reused.",
            {"saved by reuse": COLOURS["accent"], "left": COLOURS["soft"]},
            f"Bars of the time that each of {len(rows)} layers takes",
            time_chart(list(calibration["lat"]), list(calibration["saved"])),
        ),
    ]
