"""What reusing one layer at one step costs and saves, for every layer and step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch

from omnicache.calibrate.between import between
from omnicache.calibrate.layers.batches import batches
from omnicache.calibrate.layers.joint import Joint
from omnicache.calibrate.layers.replay import Recording, Replay
from omnicache.calibrate.layers.timing import Timing, timing
from omnicache.calibrate.progress import progress as bar
from omnicache.errors import OmniCacheError
from omnicache.granularity import Layers
from omnicache.kept.shelf import Shelf
from omnicache.models import discover
from omnicache.models.map import ModelMap
from omnicache.plan import Plan
from omnicache.policy import Policy, Where
from omnicache.predictors import Hold, Linear, Residual
from omnicache.runtime.session import Session
from omnicache.triggers import Table

SKETCH = 4096
"""Numbers kept of each error; longer ones are added up at random with random signs, which keeps inner products on average."""
OLDEST = 8
"""The oldest values that are tried with all layers."""
PLACES = 6
"""Steps from which the growth of an error is followed to the end, if the horizon is shorter than the run."""


@dataclass(frozen=True, eq=False)
class Profile:
    """Latency and loss of every cell.

    Attributes:
        timing: seconds a call of the denoiser, by layer; they are the same at every step, since the same is computed.
        errors: ``(layers, steps, samples, numbers)`` in float32: what reusing this layer at this step alone, one step old, adds to
            the final latent, as a share of its norm. Zero at refresh steps, which are not measured.
        together: ``(steps, ages, samples, numbers)``: the same for all layers, with values one to ``ages`` steps old. Zero where a
            plan has none that old.
        interval: every such step is a refresh step.
        inputs: how many inputs were drawn.
        horizon: for how many steps each error was followed.
    """

    timing: Timing
    errors: torch.Tensor
    together: torch.Tensor
    interval: int
    inputs: int
    horizon: int

    @property
    def layers(self) -> int:
        return self.errors.shape[0]

    @property
    def steps(self) -> int:
        return self.errors.shape[1]

    @property
    def lat(self) -> list[list[float]]:
        """Seconds that a reuse of each cell saves, by layer and step."""
        return [[saved] * self.steps for saved in self.timing.saved]

    @property
    def rest(self) -> float:
        """Seconds of a run that no reuse saves."""
        return self.timing.rest * self.steps

    @property
    def loss(self) -> list[list[float]]:
        """The relative L2 error of the final latent for each cell alone, mean over the samples."""
        return self.errors.norm(dim=-1).mean(-1).tolist()

    @cached_property
    def joint(self) -> Joint:
        """What cells cost together; the root mean square over the samples is the length of its vectors."""
        samples = self.errors.shape[2]
        return Joint.of(self.errors.flatten(2) / samples**0.5, self.together.flatten(2) / samples**0.5, self.interval - 1)


def profile(
    pipe: Any,
    inputs: Sequence[Any],
    call: dict[str, Any],
    progress: bool = True,
    *,
    interval: int = 5,
    horizon: int | None = None,
    batch: int = 4,
    folder: str | Path | None = None,
) -> Profile:
    """Measure every cell: restart an uncached run at the step before it, reuse one layer at one step, compare the end.

    The same with all layers at once, and values of all ages that a plan can have, tells how cells act together; it adds a fifth,
    for a dozen layers.

    Args:
        pipe, inputs, call, progress: as for ``omnicache.calibrate``.
        interval: every such step is a refresh step.
        horizon: follow each error for so many steps, that of the reuse included, and take its growth from there to the end
            from a few cells that are followed to the end. None follows all of them to the end, which takes about
            ``steps / (2 * horizon + 2)`` times as long.
        batch: inputs in one call.
        folder: where partial results are kept; the same call goes on from them after an interruption, to the same profile.

    Raises:
        OmniCacheError: the pipeline does not step its scheduler, has too few steps, or has no layer that can be reused.
    """
    with Replay(pipe) as replay:
        found = discover(replay.model)
        sites = found.sites("block") or Layers().select(found)
        if not sites:
            raise OmniCacheError(f"{type(found.model).__name__} has no layers that could be reused one by one.")
        calls = batches(pipe, inputs, call, batch)
        shelf = Shelf(folder, pipe, [[s.name for s in sites], calls, interval, horizon])
        first = replay.record(calls[0])
        if (steps := len(first.latents)) < 3:
            raise OmniCacheError(f"{steps} step(s) are too few to reuse anything. Draw with more.")
        times = Timing(**shelf.get("timing", lambda: _stored(timing(replay, found, first))))
        if not any(times.saved):
            raise OmniCacheError(
                f"{type(found.model).__name__} cannot be planned by layer: no layer of it was faster when it was reused. "
                "`omnicache methods` lists methods that reuse other parts."
            )
        usable = [n for n, saved in enumerate(times.saved) if saved > 0]
        cells = _Cells(replay, found, len(sites), usable)
        todo = [t for t in range(1, steps) if t % interval]
        reach = steps if horizon is None else min(horizon, steps)
        places = sorted({todo[round((len(todo) - 1) * (k / (PLACES - 1)) ** 2)] for k in range(PLACES)})
        followed = places if reach < steps else []
        alone: dict[int, list[torch.Tensor]] = {t: [] for t in todo}
        whole: dict[int, list[torch.Tensor]] = {t: [] for t in todo}
        with bar("layer by layer", len(todo) * len(calls) + len(followed), progress) as done:
            grown = {}
            for t in followed:
                grown[t] = shelf.get(f"growth-{t}", lambda t=t: cells.growth(first, t, reach))
                done()
            for b, one in enumerate(calls):
                tape = cache(lambda b=b, one=one: replay.record(one) if b else first)  # drawn only if something is still missing
                for t in todo:
                    alone[t].append(shelf.get(f"errors-{b}-{t}", lambda t=t, tape=tape: cells.errors(tape(), t, reach)))
                    whole[t].append(shelf.get(f"ages-{b}-{t}", lambda t=t, tape=tape: cells.ages(tape(), t, reach, interval)))
                    done()
    growth = [between(grown, t) if grown else 1.0 for t in range(steps)]
    like = torch.cat(alone[1], 1)
    errors, together = like.new_zeros(len(sites), steps, *like.shape[1:]), like.new_zeros(steps, OLDEST, *like.shape[1:])
    for t in todo:
        errors[:, t] = growth[t] * torch.cat(alone[t], 1)
        together[t, : len(whole[t][0])] = growth[t] * torch.cat(whole[t], 1)
    return Profile(times, errors, together[:, : interval - 1], interval, len(inputs), reach)


class _Cells:
    """Restarted runs with one cell reused."""

    def __init__(self, replay: Replay, found: ModelMap, layers: int, usable: list[int]):
        self.replay, self.found, self.layers, self.usable = replay, found, layers, usable

    def latents(self, tape: Recording, where: Where, t: int, last: int, age: int = 1) -> list[torch.Tensor]:
        """The latents after steps ``t - age ... last`` with what was computed ``age`` steps before reused at step ``t``.

        Raises:
            OmniCacheError: it was not reused.
        """
        row = "".join("." if i == t else "#" for i in range(len(tape.latents)))
        plan = Plan("calibration", (Policy(Table(row), where, Residual(Hold() if age == 1 else Oldest(age))),), min_steps=0)
        session = Session(self.found, plan, self.replay.pipe)
        try:
            made = self.replay.restart(tape, t - age, last)
            if not any(r.reused for r in session.trace.records):
                raise OmniCacheError(
                    f"{where} of {type(self.found.model).__name__} could not be reused at step {t}. "
                    + " ".join(session.trace.notes)
                )
        finally:
            session.detach()
        return made

    def errors(self, tape: Recording, t: int, reach: int) -> torch.Tensor:
        """``(layers, samples, numbers)``: errors after up to ``reach`` steps from step ``t`` on, as shares of the final latent."""
        made = []
        for layer in range(self.layers):
            if layer not in self.usable:
                made.append(torch.zeros_like(sketch(tape.latents[0])))
                continue
            made.append(self.error(tape, Layers(layer, layer + 1), t, reach))
        return torch.stack(made).cpu()

    def ages(self, tape: Recording, t: int, reach: int, interval: int) -> torch.Tensor:
        """``(ages, samples, numbers)``: the same with all layers reused, one step old, two, and so on, as old as a plan allows."""
        everything = Layers(0, self.layers)
        return torch.stack([self.error(tape, everything, t, reach, age) for age in range(1, min(t % interval, OLDEST) + 1)]).cpu()

    def error(self, tape: Recording, where: Where, t: int, reach: int, age: int = 1) -> torch.Tensor:
        """``(samples, numbers)``."""
        last = min(t + reach, len(tape.latents)) - 1
        wrong = sketch(self.latents(tape, where, t, last, age)[-1] - tape.latents[last])
        return wrong / tape.latents[-1].flatten(1).norm(dim=1)[:, None].clamp_min(1e-30)

    def growth(self, tape: Recording, t: int, reach: int) -> float:
        """How many times larger errors are in the end than after ``reach`` steps from ``t`` on: geometric mean of three layers."""
        last = min(t + reach, len(tape.latents)) - 1
        picked = {self.usable[0], self.usable[len(self.usable) // 2], self.usable[-1]}
        logs = []
        for layer in sorted(picked):
            run = self.latents(tape, Layers(layer, layer + 1), t, len(tape.latents) - 1)
            early = float((run[last - (t - 1)] - tape.latents[last]).norm())
            late = float((run[-1] - tape.latents[-1]).norm())
            logs.append(math.log(late / early) if early > 0 and late > 0 else 0.0)
        return math.exp(sum(logs) / len(logs))


@dataclass(frozen=True)
class Oldest(Linear):
    """The oldest of the last ``keep`` computed values."""

    keep: int = 1

    def weights(self, past: tuple[float, ...], now: float) -> tuple[float, ...]:
        return (0.0,) * (len(past) - 1) + (1.0,)


def sketch(latents: torch.Tensor) -> torch.Tensor:
    """``(samples, numbers)`` of latents ``(samples, ...)``, at most ``SKETCH`` a sample, with inner products kept on average
    (count sketch: each number goes to a random place with a random sign, the same at every call)."""
    flat = latents.float().flatten(1)
    if flat.shape[1] <= SKETCH:
        return flat
    draw = torch.Generator().manual_seed(flat.shape[1])
    place = torch.randint(SKETCH, (flat.shape[1],), generator=draw).to(flat.device)
    sign = torch.randint(2, (flat.shape[1],), generator=draw).to(flat) * 2 - 1
    return flat.new_zeros(flat.shape[0], SKETCH).index_add_(1, place, flat * sign)


def _stored(times: Timing) -> dict[str, Any]:
    return {"computed": times.computed, "saved": times.saved, "whole": times.whole}
