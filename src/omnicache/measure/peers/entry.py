"""What is known of the contenders while they are measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from omnicache.measure.peers.choice import choice, nearest
from omnicache.measure.peers.contender import Contender, Setting


@dataclass
class Entry:
    """What is known of one contender.

    Attributes:
        module: that it is in.
        settings: that are tried.
        rows: of those that were.
        why: none are.
        left_out: settings for which there was no time.
    """

    module: str
    contender: Contender
    settings: list[Setting] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    why: str | None = None
    left_out: list[Setting] = field(default_factory=list)


def chosen_of(entries: Sequence[Entry], goals: Sequence[float]) -> list[dict[str, Any]]:
    """One for each goal and contender: the setting that is chosen by the tuning inputs, or the ``nearest`` where none is; ``held``
    is for its figures on held-out inputs."""
    made = []
    for goal in goals:
        for entry in entries:
            if entry.why is not None or not entry.rows:
                continue
            row = choice(entry.rows, goal)
            one = {"goal": goal, "contender": entry.contender.name, "kind": entry.contender.kind, "held": None}
            if row is None:
                near = nearest(entry.rows)
                near = None if near is None else {key: near[key] for key in ("label", "psnr", "speedup")}
                why = next((r["why"] for r in entry.rows if r["options"].get("goal") == goal and "why" in r), None)
                made.append({**one, "label": None, "nearest": near, "why": why})
            else:
                tuning = {key: row[key] for key in ("psnr", "speedup", "samples")}
                made.append({**one, "label": row["label"], "options": row["options"], "tuning": tuning})
    return made
