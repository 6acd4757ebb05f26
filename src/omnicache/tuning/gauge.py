from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import omnicache
from omnicache.errors import OmniCacheError
from omnicache.fingerprint import shape_seen
from omnicache.integrations.pipelines import as_call, denoisers
from omnicache.kept.shelf import Shelf
from omnicache.kept.store import Store
from omnicache.measure.likeness import EQUAL, likeness
from omnicache.measure.speed import speed
from omnicache.plan import Plan

PAIRS = 5


class Gauge:
    """Draws inputs with plans, compares them with the uncached pictures, times them, and keeps all of it: what is asked for a
    second time, also by a later process, is not measured again.

    Args:
        pipe: a pipeline.
        inputs: as of ``omnicache.calibrate``.
        call: arguments of every call.
        folder: for figures and uncached pictures, each search in a folder of its own there.

    Attributes:
        place: that folder: another one for other weights, schedulers, inputs, arguments, machines or sources.
    """

    def __init__(self, pipe: Any, inputs: Sequence[Any], call: Mapping[str, Any], folder: Path):
        self.pipe, self.inputs, self.call = pipe, inputs, dict(call)
        self._shelf = Shelf(folder, pipe, [inputs, self.call])
        assert self._shelf.place is not None
        self.place = self._shelf.place
        self.store = Store(self.place / "figures.jsonl")

    def likeness(self, key: str, plan: Plan, which: Sequence[int]) -> tuple[list[float], int]:
        """PSNR of inputs, in dB against the uncached ones, and the most bytes that a run held."""
        found, held = [], 0
        for i in which:
            row = self.store.get(f"psnr {key} {i}")
            if row is None:
                with omnicache.cache(self.pipe, plan) as run:
                    made = self.draw(i)
                db = float(likeness(made, self.uncached(i)).mean())
                idle = db == EQUAL and set(run.computed) <= {"#"}
                row = self.store.put(f"psnr {key} {i}", {"psnr": db, "bytes": run.cache_bytes, "idle": idle})
            found.append(row["psnr"])
            held = max(held, row["bytes"])
        return found, held

    def idle(self, key: str, which: Sequence[int]) -> bool:
        """Whether nothing was reused in any of these runs, which :meth:`likeness` has drawn."""
        return all((self.store.get(f"psnr {key} {i}") or {}).get("idle", False) for i in which)

    def speedup(self, key: str, plan: Plan, i: int = 0) -> dict[str, Any]:
        """See ``measure.speed``; on one input."""
        known = self.store.get(f"speed {key} {i}")
        if known is None:
            known = self.store.put(f"speed {key} {i}", speed(self.pipe, lambda: self.draw(i), plan, PAIRS))
        return known

    @property
    def latents(self) -> dict[str, Any]:
        """``{"latents": shape}`` of what the denoiser is given, without the batch, if it is the same for all that was drawn."""
        rows = [self.store.get(f"latents {i}") for i in range(len(self.inputs))]
        shapes = {tuple(row["shape"]) for row in rows if row is not None}
        return {"latents": shapes.pop()} if len(shapes) == 1 and () not in shapes else {}

    def uncached(self, i: int) -> torch.Tensor:
        """The picture or film of an input."""
        return self._shelf.get(f"uncached-{i}", lambda: self.draw(i))

    @torch.no_grad()
    def draw(self, i: int) -> torch.Tensor:
        """``(n, 3, h, w)`` in [0, 1], of films all frames.

        Raises:
            OmniCacheError: the pipeline returns no pictures.
        """
        given = {**self.call, **as_call(self.pipe, self.inputs[i], seed=i)}
        if self.store.get(f"latents {i}") is None:
            with shape_seen(denoisers(self.pipe)[0]) as seen:
                made = self.pipe(**given)
            self.store.put(f"latents {i}", {"shape": seen.get("latents", ())})
        else:
            made = self.pipe(**given)
        made = made if isinstance(made, torch.Tensor) else made[0]
        if not isinstance(made, torch.Tensor):
            raise OmniCacheError(
                f"{type(self.pipe).__name__} returns {type(made).__name__} and no tensor of pictures; leave output_type out, or "
                'give output_type="pt".'
            )
        if made.ndim < 4:
            raise OmniCacheError(
                f"{type(self.pipe).__name__} returns {tuple(made.shape)}, and a search compares pictures, (n, 3, height, width)."
            )
        return made.float().cpu().flatten(0, -4)
