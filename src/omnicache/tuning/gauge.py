from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import omnicache
from omnicache.errors import OmniCacheError
from omnicache.fingerprint import shape_seen
from omnicache.integrations.pipelines import as_call, denoisers
from omnicache.kept.shelf import Shelf
from omnicache.kept.store import Store
from omnicache.measure.bench.work import Clock
from omnicache.measure.likeness import EQUAL, likeness
from omnicache.measure.speed import speed
from omnicache.now import now
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
        clock: the seconds of all that a search has asked for, whichever process has measured it, so that every one that goes on
            from here has as much time left as one that was never interrupted.
    """

    def __init__(self, pipe: Any, inputs: Sequence[Any], call: Mapping[str, Any], folder: Path):
        self.pipe, self.inputs, self.call = pipe, inputs, dict(call)
        self._shelf = Shelf(folder, pipe, [inputs, self.call])
        assert self._shelf.place is not None
        self.place = self._shelf.place
        self.store = Store(self.place / "figures.jsonl")
        self.clock = Clock()

    def likeness(self, key: str, plan: Plan, which: Sequence[int]) -> tuple[list[float], int]:
        """PSNR of inputs, in dB against the uncached ones, and the most bytes that a run held."""
        found, held = [], 0
        for i in which:
            self.once(f"uncached {i}", lambda i=i: self.uncached(i))
            row = self._kept(f"psnr {key} {i}", lambda i=i: self._compared(plan, i))
            found.append(row["psnr"])
            held = max(held, row["bytes"])
        return found, held

    def _compared(self, plan: Plan, i: int) -> dict[str, Any]:
        with omnicache.cache(self.pipe, plan) as run:
            made = self.draw(i)
        db = float(likeness(made, self.uncached(i)).mean())
        return {"psnr": db, "bytes": run.cache_bytes, "idle": db == EQUAL and not any(s.trace.reused for s in run.sessions)}

    def idle(self, key: str, which: Sequence[int]) -> bool:
        """Whether nothing was reused in any of these runs, which :meth:`likeness` has drawn."""
        return all((self.store.get(f"psnr {key} {i}") or {}).get("idle", False) for i in which)

    def speedup(self, key: str, plan: Plan, i: int) -> dict[str, Any]:
        """See ``measure.speed``; on one input."""
        return self._kept(f"speed {key} {i}", lambda: speed(self.pipe, lambda: self.draw(i), plan, PAIRS))

    def once(self, what: str, do: Callable[[], Any]) -> None:
        """Do what leaves its result elsewhere. Where an earlier process has done it, its seconds are counted and that is all."""
        self._kept(f"done {what}", lambda: (do(), {})[1])

    def _kept(self, key: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The figures of a key, measured if they are not known. The seconds that they took are kept with them and count once; those
        of what fails, and so is tried again by a later process, count there."""
        row, began = self.store.get(key), now()
        try:
            row = row or self.store.put(key, {**measure(), "took": now() - began})
            return row
        finally:
            if key not in self.clock.took:
                self.clock.add(key, now() - began if row is None else row["took"])

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
