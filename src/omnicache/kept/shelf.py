"""Partial results in a folder, so that a calibration that was interrupted goes on where it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from omnicache.kept.files import kept
from omnicache.kept.origin import digest, sources, surroundings


class Shelf:
    """Keeps tensors and numbers by name, in a folder that is this calibration's alone; nowhere without one.

    Args:
        folder: where to keep them; calibrations of other pipelines, inputs or options may use it, too.
        pipe: the pipeline or module; its weights, its scheduler, the machine and the sources of this package are part of the key.
        key: all else that the results depend on.
    """

    def __init__(self, folder: str | Path | None, pipe: Any, key: Any):
        self.place = None if folder is None else Path(folder) / digest([surroundings(pipe), sources(), key])

    def known(self, name: str) -> bool:
        return self.place is not None and (self.place / f"{name}.pt").exists()

    def get(self, name: str, make: Callable[[], Any]) -> Any:
        """What is kept under this name; if nothing is, it is made and kept."""
        return make() if self.place is None else kept(self.place / f"{name}.pt", make)
