"""What a command leaves beside what it wrote, so that ``omnicache report`` can draw the same again."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from omnicache.errors import OmniCacheError
from omnicache.plan import Plan

FILE, PLAN = "run.json", "plan.json"
FORMAT = 1


@dataclass(frozen=True)
class Record:
    """A command's run.

    Attributes:
        model: as it was given to the command.
        method: as it was given, a name or a plan file; of a comparison the best one's. Its plan, with all options, lies beside.
        steps: of the sampler.
        guidance: its scale; None for the pipeline's own.
        inputs: prompts, or classes by number or name; empty where the pipeline is asked nothing, or what is usual was taken.
        seed: of the first input; the next ones count on.
        command: what was typed.
        tried: figures of all settings that the command compared, ``{"label", "method", "speedup", "psnr"}``.
        chosen: the label of the one whose plan lies beside it.
        images: for each picture that was written its input, path, steps, bytes and remarks.
    """

    model: str
    method: str
    steps: int
    guidance: float | None = None
    inputs: tuple[str, ...] = ()
    seed: int = 0
    command: str = field(default_factory=lambda: "omnicache " + shlex.join(sys.argv[1:]))
    tried: Sequence[Mapping[str, Any]] = ()
    chosen: str = ""
    images: Sequence[Mapping[str, Any]] = ()

    def save(self, folder: Path, plan: Plan) -> None:
        """Write ``run.json`` and the plan, ``plan.json``, into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        plan.save(folder / PLAN)
        text = json.dumps({"omnicache_run": FORMAT, **asdict(self)}, indent=1, allow_nan=False)
        (folder / FILE).write_text(text + "\n", encoding="utf-8")


def pictures_of(folder: Path) -> set[Path]:
    """The files that the run recorded in a folder has written there, by the names that runs give them; none if there was none."""
    try:
        listed = [Path(str(one["path"])) for one in recorded(folder)[0].images if "path" in one]
    except OmniCacheError:
        return set()
    return {folder / path.name for path in listed if path.stem.isdigit()}


def recorded(folder: Path) -> tuple[Record, Plan]:
    """What ``save`` has written.

    Raises:
        OmniCacheError: there is no such record, or it cannot be read.
    """
    path = folder / FILE
    if not path.exists():
        raise OmniCacheError(
            f"{str(folder)!r} has no {FILE}: it is no folder that omnicache run, demo or bench of this version wrote. Give such a "
            "folder, or a plan file."
        )
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data.pop("omnicache_run") != FORMAT:
            raise OmniCacheError(f"{str(path)!r} is of another version. Run its command again.")
        lists = {name: tuple(data[name]) for name in ("inputs", "tried", "images")}
        return Record(**{**data, **lists}), Plan.load(folder / PLAN)
    except (ValueError, KeyError, TypeError, OSError, AttributeError) as bad:
        raise OmniCacheError(f"{str(path)!r} cannot be read ({type(bad).__name__}: {bad}). Run its command again.") from None
