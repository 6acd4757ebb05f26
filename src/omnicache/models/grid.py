from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from omnicache.models.latent import Latent


@dataclass(frozen=True)
class Grid:
    """How the rows that a module is given, ``(entries, rows, ...)``, lie in a picture or film.

    Attributes:
        batch, frames, height, width: of the film, in rows.
        along: which rows stand in one sequence: those of a frame ("space"), those of one position ("time"), or all ("film").
        before: rows of something else (text) at the beginning of each sequence.
        guided: whether the halves of the batch are guidance branches of the same film.
    """

    batch: int
    frames: int
    height: int
    width: int
    along: str
    before: int = 0
    guided: bool = False

    @classmethod
    def of(cls, latent: Latent | None, entries: int, rows: int, temporal: bool = False) -> Grid | None:
        """The grid of a module, from the sizes of its input and whether it is known to look along time; None if they do not fit."""
        if latent is None:
            return None
        batch, frames = latent.batch, latent.frames
        for before in (0, latent.text) if latent.text else (0,):
            per_frame = (rows - before) // frames
            found: dict[str, tuple[int, int] | None] = {}
            if entries == batch * frames:
                found["space"] = _side(latent, rows - before)
            if frames > 1 and rows == frames and entries % batch == 0 and not before:
                found["time"] = _side(latent, entries // batch)
            if frames > 1 and entries == batch and per_frame * frames == rows - before:
                found["film"] = _side(latent, per_frame)
            order = ("time", "space", "film") if temporal else ("space", "film", "time")
            for along in order:
                if (side := found.get(along)) is not None:
                    return cls(batch, frames, *side, along, before, latent.guided)
        return None

    @property
    def rows(self) -> int:
        """Rows of a sequence."""
        cells = self.height * self.width
        return self.before + {"space": cells, "time": self.frames, "film": self.frames * cells}[self.along]

    @property
    def entries(self) -> int:
        return self.batch * {"space": self.frames, "time": self.height * self.width, "film": 1}[self.along]

    def fits(self, x: torch.Tensor) -> bool:
        return x.ndim >= 2 and tuple(x.shape[:2]) == (self.entries, self.rows)

    def film(self, x: torch.Tensor) -> torch.Tensor:
        """``(entries, rows, ...)`` as ``(batch, frames, height, width, ...)``, without what stands before the film."""
        x = x[:, self.before :]
        size = (self.batch, self.frames, self.height, self.width)
        if self.along == "time":
            size = (self.batch, self.height, self.width, self.frames)
        found = x.reshape(*size, *x.shape[2:])
        return found.movedim(3, 1) if self.along == "time" else found

    def back(self, film: torch.Tensor) -> torch.Tensor:
        """What ``film`` has made, as the module has its rows: ``(entries, rows, ...)``, without what stands before the film."""
        rows = film.movedim(1, 3) if self.along == "time" else film
        return rows.reshape(self.entries, self.rows - self.before, *film.shape[4:])


def _side(latent: Latent, cells: int) -> tuple[int, int] | None:
    """Height and width of so many cells: those of the latent divided by a patch or a pooling."""
    if cells <= 0:
        return None
    scale = math.sqrt(latent.height * latent.width / cells)
    for s in dict.fromkeys((round(scale), math.floor(scale), math.ceil(scale))):
        for cut in (math.ceil, math.floor):
            height, width = (cut(side / s) for side in (latent.height, latent.width)) if s else (0, 0)
            if height * width == cells:
                return height, width
    return None
