"""A study's pictures with their words."""

from __future__ import annotations

import math

from omnicache.measure.look import PARTS
from omnicache.measure.study import Study
from omnicache.report._panels import Panel
from omnicache.report._svg import COLOURS
from omnicache.report.both_paths import both_paths
from omnicache.report.layer_chart import layer_map
from omnicache.report.step_chart import step_chart
from omnicache.report.trajectories import path_colours, trajectories

MARKS = {"not computed": COLOURS["accent"], "computed": COLOURS["muted"]}
"""What dots of the two kinds are."""
SAME = 1e-6
"""Relative error up to which two runs are the same but for rounding."""
UNITS = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))


def error_panels(study: Study) -> list[Panel]:
    """How far the run strays, step by step."""
    one, found = study.drawn[0], []
    marks = one.look.run.computed
    if max(study.errors, default=0.0) > SAME:
        many = f", the mean over {len(study.drawn)} inputs" if len(study.drawn) > 1 else ""
        text = f"How far the latents are from the uncached run's after each step{many}. What is done early is carried along."
        errors = [100 * e for e in study.errors]
        chart = step_chart(errors, marks, "error of the latents (%)")
        alt = f"Error of the latents: {errors[-1]:.1f} % after the last step"
        found.append(Panel("error", "The error so far", text, _dots(marks), alt, chart))
    strayed = [100 * e for e in one.look.strayed]
    if any(e > 100 * SAME for e in strayed):
        before = ", before the plan corrects it" if study.repair else ""
        text = f"How far the denoiser's output is from the whole model's on the same latents{before}. "
        text += "Short steps carry little of it into the latents."
        chart = step_chart(strayed, marks, "error of the step (%)")
        worst = max(e for e in strayed if math.isfinite(e))
        found.append(
            Panel("strayed", "The error of each step", text, _dots(marks), f"Error of each step, at most {worst:.0f} %", chart)
        )
    return found


def layer_panels(study: Study) -> list[Panel]:
    """What ran, and how far it strayed, layer by layer; nothing where all layers are alike."""
    seen = study.drawn[0].look
    if not seen.ran or not any(share < 1 for row in seen.ran.values() for share in row):
        return []
    names, whole = list(seen.ran), [share for row in seen.ran.values() for share in row]
    what = "part of a layer" if any(word in names[-1].rpartition(".")[2] for word in ("attn", "ff", "mlp", *PARTS)) else "layer"
    ends = f"From {names[0]} at the top to {names[-1]}." if len(names) > 1 else f"{names[0]}."
    text = f"The share of its rows that each {what} ran on at each step: {sum(whole) / len(whole):.0%} in all. {ends}"
    alt = f"Heat map over {len(names)} rows and {len(seen.strayed)} steps; {sum(whole) / len(whole):.0%} ran"
    found = [Panel("ran", "What was computed", text, {}, alt, layer_map(list(seen.ran.values()), "share computed", what))]
    off = list(seen.off.values())
    if sum(any(math.isfinite(e) and e > 0 for e in row) for row in off) > 1:  # one row alone is the error of each step
        worst, name = max((e, n) for n, row in seen.off.items() for e in row if math.isfinite(e))
        text = f"How far what each {what} hands on is from what it hands on in an uncached evaluation of the same latents; at most "
        text += f"{worst:.0%}, in {name}. Blank where it was passed over."
        found.append(Panel("off", "How far it strayed", text, {}, f"{worst:.0%} at most", layer_map(off, "error", what, True)))
    return found


def path_panel(study: Study) -> list[Panel]:
    """The path of the first input without and with the plan; nothing where no latents were seen, or both are one path."""
    one = study.drawn[0]
    if len(one.path) < 3 or len(one.look.latents) < 3 or max(one.errors, default=1.0) < SAME:
        return []
    points, times = both_paths(one.path, one.look.latents)
    larger = f" The distance between the two is drawn {times} times as large as it is." if times > 1 else ""
    text = "The latents of the first input, projected to three dimensions; an open circle is the noise, a full one the result."
    names = ["uncached", "cached"]
    alt = "Two paths in three dimensions"
    return [Panel("path", "From noise to result", text + larger, path_colours(names), alt, trajectories(points, names, equal=True))]


def memory_panel(study: Study) -> list[Panel]:
    """Bytes kept over time."""
    held = study.drawn[0].look.bytes
    if not any(held):
        return []
    unit, size = next(((unit, size) for unit, size in UNITS if max(held) >= size), ("bytes", 1))
    marks = study.drawn[0].look.run.computed
    chart = step_chart([n / size for n in held], marks, f"kept ({unit})")
    text = "What the cache holds after each step. Values go when no later step asks for them."
    return [Panel("memory", "Memory over time", text, _dots(marks), f"Memory kept, at most {max(held) / size:.1f} {unit}", chart)]


def _dots(marks: str) -> dict[str, str]:
    """The key of a chart over the steps of a run: the kinds of dots that are in it."""
    there = {"not computed": bool(set(marks) - {"#"}), "computed": "#" in marks}
    return {name: colour for name, colour in MARKS.items() if there[name]}
