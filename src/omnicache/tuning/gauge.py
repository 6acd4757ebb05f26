from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import omnicache
from omnicache.api import fingerprint
from omnicache.errors import OmniCacheError
from omnicache.integrations.pipelines import as_call, denoisers
from omnicache.measure.bench.store import Store
from omnicache.measure.psnr import psnr
from omnicache.measure.speed import speed
from omnicache.plan import Plan

EQUAL = 100.0
"""dB of pictures that are the same."""
PAIRS = 5


class Gauge:
    """Draws inputs with plans, compares them with the uncached pictures, times them, and keeps all of it: what is asked for a
    second time, also by a later process, is not measured again.

    Args:
        pipe: a pipeline.
        inputs: as of ``omnicache.calibrate``.
        call: arguments of every call.
        folder: for figures, plans and uncached pictures.
    """

    def __init__(self, pipe: Any, inputs: Sequence[Any], call: Mapping[str, Any], folder: Path):
        self.pipe, self.inputs, self.call, self.folder = pipe, inputs, dict(call), folder
        self.store = Store(folder / "figures.jsonl")
        self._uncached: dict[int, torch.Tensor] = {}

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
        path = self.folder / "uncached" / f"{i}.pt"
        if i not in self._uncached and path.exists():
            self._uncached[i] = torch.load(path, weights_only=True)
        if i not in self._uncached:
            self._uncached[i] = self.draw(i)
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(self._uncached[i], path.with_suffix(".part"))
            path.with_suffix(".part").replace(path)
        return self._uncached[i]

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


def folder_of(pipe: Any, inputs: Sequence[Any], call: Mapping[str, Any], base: Path) -> Path:
    """Where the figures of such runs are kept: another folder for other weights, inputs, arguments or versions."""
    model = denoisers(pipe)[0]
    about = {
        "model": [fingerprint(model), float(sum(p.detach().double().abs().sum() for p in model.parameters()))],
        "scheduler": _told(dict(getattr(getattr(pipe, "scheduler", None), "config", {}) or {})),
        "inputs": _told(list(inputs)),
        "call": _told(dict(call)),
        "versions": [omnicache.__version__, torch.__version__, str(next(model.parameters()).device)],
    }
    word = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()[:16]
    return base / f"{type(model).__name__}-{word}"


def _told(value: Any) -> Any:
    """Anything that a call may hold, as something that JSON can, the same for the same."""
    if isinstance(value, Mapping):
        return {str(k): _told(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_told(v) for v in value]
    if isinstance(value, torch.Generator):
        return ["seed", value.initial_seed()]
    if isinstance(value, torch.Tensor):
        return [
            "tensor",
            list(value.shape),
            hashlib.sha256(value.detach().cpu().contiguous().float().numpy().tobytes()).hexdigest(),
        ]
    if callable(getattr(value, "tobytes", None)):
        return [type(value).__name__, hashlib.sha256(value.tobytes()).hexdigest()]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(type(value))
