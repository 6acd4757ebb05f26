"""How long each layer takes, computed and reused."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from omnicache.calibrate.layers.replay import Recording, Replay
from omnicache.granularity import Layers
from omnicache.models.map import ModelMap, Site
from omnicache.now import now
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.predictors import Hold, Residual
from omnicache.runtime.hook import Hook
from omnicache.runtime.session import Session
from omnicache.triggers import Table


@dataclass(frozen=True)
class Timing:
    """Seconds of one call of the denoiser: medians over the calls of a few runs.

    Attributes:
        computed: each layer's time.
        saved: what reusing it saves of that; 0 where it is less than a fifth, as where a layer cannot be reused.
        whole: the whole call's time.
    """

    computed: tuple[float, ...]
    saved: tuple[float, ...]
    whole: float

    @property
    def rest(self) -> float:
        """What no reuse saves."""
        return max(self.whole - sum(self.saved), 0.0)


def timing(replay: Replay, found: ModelMap, tape: Recording, repeats: int = 3) -> Timing:
    """Time the layers in uncached runs, and in runs that reuse all of them at every other step.

    On an accelerator each layer is waited for, so that its own work is counted and not the queue's.
    """
    sites = Layers().select(found) if not found.sites("block") else found.sites("block")
    total = len(tape.latents)
    table = Table("".join("#."[i % 2] for i in range(total)))
    policies = tuple(Policy(table, Layers(i, i + 1), Residual(Hold())) for i in range(len(sites)))
    plain = _Watch(replay, found.model, sites)
    cached = _Watch(replay, found.model, sites)
    for _ in range(repeats):
        with plain:
            replay.restart(tape)
        session = Session(found, Plan("calibration", policies, min_steps=0), replay.pipe)
        try:
            with cached:
                replay.restart(tape)
        finally:
            session.detach()
    whole = statistics.median(plain.seconds(-1))
    # Parts of the same call, since a machine that is busy is slow in both: a median of seconds would mix calls.
    computed = [whole * statistics.median(plain.shares(i)) for i in range(len(sites))]
    saved = []
    for i, seconds in enumerate(computed):
        full, reused = (cached.seconds(i, lambda step, odd=odd: step > 0 and step % 2 == odd) for odd in (0, 1))
        left = statistics.median(reused) / statistics.median(full) if reused and full else 1.0
        saved.append((1 - left) * seconds if left < 0.8 else 0.0)
    return Timing(tuple(computed), tuple(saved), whole)


class _Watch:
    """Adds up the time of each site's modules, by call of the denoiser."""

    def __init__(self, replay: Replay, model: nn.Module, sites: Sequence[Site]):
        self._replay, self._model, self._sites = replay, model, sites
        self._hooks: list[Hook] = []
        self._inside: dict[int, float] = {}
        self._calls: list[tuple[int, dict[int, float]]] = []

    def seconds(self, place: int, at: Callable[[int], bool] = lambda step: step > 0) -> list[float]:
        """Of each call of the denoiser at these steps; the first step of a run is left out, since caches are cold there."""
        return [times[place] for step, times in self._calls if at(step) and place in times]

    def shares(self, place: int) -> list[float]:
        """Of each call of the denoiser after the first step: how much of its time is this site's."""
        return [times[place] / times[-1] for step, times in self._calls if step > 0 and place in times]

    def __enter__(self) -> _Watch:
        for place, site in enumerate(self._sites):
            self._hooks += [Hook(m, lambda *given, place=place: self._timed(place, *given)) for m in site.modules]
        self._hooks.append(Hook(self._model, self._whole))
        return self

    def __exit__(self, *problem: object) -> None:
        for hook in reversed(self._hooks):
            hook.remove()
        self._hooks = []

    def _timed(self, place: int, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        began = now()
        out = call(*args, **kwargs)
        self._inside[place] = self._inside.get(place, 0.0) + now() - began
        return out

    def _whole(self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._inside = {}
        out = self._timed(-1, call, args, kwargs)
        self._calls.append((self._replay.taken, self._inside))
        return out
