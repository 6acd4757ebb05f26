from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import omnicache
from omnicache.errors import OmniCacheError
from omnicache.integrations.pipelines import as_call, denoisers
from omnicache.kept.shelf import Shelf
from omnicache.kept.store import Store
from omnicache.measure.psnr import psnr
from omnicache.measure.quality import EQUAL
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
        place: that folder: another one for other weights, schedulers, inputs, arguments or versions.
    """

    def __init__(self, pipe: Any, inputs: Sequence[Any], call: Mapping[str, Any], folder: Path):
        self.pipe, self.inputs, self.call = pipe, inputs, dict(call)
        model, scheduler = denoisers(pipe)[0], getattr(getattr(pipe, "scheduler", None), "config", {})
        machine = [omnicache.__version__, torch.__version__, str(next(model.parameters()).device)]
        self._shelf = Shelf(folder, model, [type(model).__name__, scheduler, inputs, self.call, machine])
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
                db = float(psnr(made, self.uncached(i)).clamp_max(EQUAL).mean())
                row = self.store.put(f"psnr {key} {i}", {"psnr": db, "bytes": run.cache_bytes})
            found.append(row["psnr"])
            held = max(held, row["bytes"])
        return found, held

    def speedup(self, key: str, plan: Plan) -> dict[str, Any]:
        """See ``measure.speed``; on the first input."""
        known = self.store.get(f"speed {key}")
        if known is None:
            known = self.store.put(f"speed {key}", speed(self.pipe, lambda: self.draw(0), plan, PAIRS))
        return known

    def uncached(self, i: int) -> torch.Tensor:
        """The picture or film of an input."""
        return self._shelf.get(f"uncached-{i}", lambda: self.draw(i))

    @torch.no_grad()
    def draw(self, i: int) -> torch.Tensor:
        """``(n, 3, h, w)`` in [0, 1], of films all frames; what a pipeline without pictures returns, as it is."""
        given = {**self.call, **as_call(self.pipe, self.inputs[i], seed=i)}
        made = self.pipe(**given)
        made = made if isinstance(made, torch.Tensor) else made[0]
        if not isinstance(made, torch.Tensor):
            raise OmniCacheError(
                f"{type(self.pipe).__name__} returns {type(made).__name__} and no tensor of pictures; leave output_type out, or "
                'give output_type="pt".'
            )
        return made.float().cpu().flatten(0, -4)
