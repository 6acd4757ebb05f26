"""FEB-Cache's table: at which steps attention, the MLP or both may be reused, by the error that each of these makes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import torch

from omnicache.calibrate.record import Recorder, each_run, watched
from omnicache.correctors import NoiseScaling
from omnicache.errors import OmniCacheError
from omnicache.granularity import MLP, Attention
from omnicache.plan import Plan
from omnicache.policy import Policy, Where
from omnicache.predictors import Hold
from omnicache.registry import Choice, Range
from omnicache.runtime.clock import Clock
from omnicache.runtime.step import Step
from omnicache.triggers import Every

Errors = list[dict[tuple[int, int], float]]
"""For each input the error of reusing values of an age, in steps, at a step: by age and step."""


def calibrate_feb_cache(
    pipe: Any,
    inputs: Sequence[Any],
    call: dict[str, Any],
    progress: bool = True,
    *,
    reuse: Annotated[float, Range(0, 1)] = 0.3,
    delta: Annotated[float | None, Range(0)] = None,
    slope: Annotated[float, Range(0)] = 1.0,
    error: Annotated[str, Choice(("relative", "norm"))] = "relative",
    longest: Annotated[int, Range(1)] = 3,
    scaling: Annotated[str, Choice(("paper", "released", "none"))] = "paper",
    theta: Annotated[float, Range(0, 0.99)] = 0.4,
) -> Plan:
    """Measure uncached runs and make FEB-Cache's table of states.

    At each step every input votes for what saves most of what errs less than ``delta(t) = delta * (1 + slope * t)``: reuse of both;
    of the MLP in the early stage, of attention in the late one; or neither. The values that would be reused are as old as the
    table made so far leaves them.

    Args:
        reuse: the share of attention and MLP calls to save; it finds ``delta``, unless one is given.
        delta: the error that is allowed at the end of a run.
        slope: how much more is allowed at its beginning, in units of that. The paper found a positive linear function best and
            does not give it.
        error: "relative" is the length of the difference over that of the output; "norm" the paper's, the difference of the
            lengths, here over that of the output: it does not see an output that was turned.
        longest: values are reused for at most so many steps in a row, since older ones are not measured.
        scaling, theta: of the method; ``theta`` parts the stages, too.
    """
    from omnicache.methods.feb_cache import feb_cache

    plan = feb_cache(scaling=scaling, theta=theta)
    fix = plan.policies[0].fix
    factor = fix.at if isinstance(fix, NoiseScaling) and error == "norm" else lambda time: 1.0
    runs = _Runs(pipe, inputs, call, progress, longest, error, factor)
    places: tuple[tuple[str, Where], ...] = ((".", Attention() | MLP()), ("m", MLP()), ("a", Attention()))
    errors = {state: runs.errors(where) for state, where in places}
    if not any(errors["."]):
        raise OmniCacheError("Nothing of this pipeline's denoiser could be reused: it has no attention and MLP apart, or one step.")

    def table(limit: float) -> str:
        return build(errors, runs.times, lambda time: limit * (1 + slope * time), theta)

    delta = _least(lambda limit: saved(table(limit)) >= reuse) if delta is None else delta
    schedule = table(delta)
    made = feb_cache(schedule=schedule, scaling=scaling, theta=theta)
    return made.with_measured(schedule=schedule, delta=delta, saved=saved(schedule), inputs=len(inputs))


def build(errors: Mapping[str, Errors], times: Sequence[float], delta: Callable[[float], float], theta: float) -> str:
    """The table from the errors of each state: by vote, most saving first; the lesser saving wins a tie."""
    marks, ages = "#", {"m": 1, "a": 1}
    for i, time in list(enumerate(times))[1:]:
        candidate, votes = "m" if time >= theta else "a", {"#": 0, "m": 0, "a": 0, ".": 0}
        age = {**ages, ".": max(ages.values())}
        for sample in range(len(errors["."])):
            fits = (s for s in (".", candidate) if errors[s][sample].get((age[s], i), math.inf) < delta(time))
            votes[next(fits, "#")] += 1
        chosen = max(("#", candidate, "."), key=lambda s: votes[s])
        marks += chosen
        ages = {s: ages[s] + 1 if chosen in (s, ".") else 1 for s in ages}
    return marks


def saved(schedule: str) -> float:
    """The share of attention and MLP calls that a table saves."""
    return sum({"#": 0.0, ".": 1.0}.get(mark, 0.5) for mark in schedule) / len(schedule)


def _least(enough: Callable[[float], bool]) -> float:
    """A thousandth more than the smallest number that is enough, or what is as good as infinite if none is."""
    low, high = 0.0, 1e-4
    while not enough(high) and high < 1e6:
        low, high = high, 2 * high
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return 1.001 * high


class _Runs:
    """Uncached runs with rehearsals of what reuse at some place would give."""

    def __init__(
        self,
        pipe: Any,
        inputs: Sequence[Any],
        call: dict[str, Any],
        progress: bool,
        longest: int,
        error: str,
        factor: Callable[[float], float],
    ):
        self._arguments = (pipe, inputs, call, progress)
        self._longest, self._error, self._factor = longest, error, factor
        self.times: list[float] = []

    def errors(self, where: Where) -> Errors:
        """What reusing the outputs of ``where`` makes of the model's output, the worst of the guidance passes."""
        pipe, inputs, call, progress = self._arguments
        found: Errors = []
        latents: list[torch.Tensor] = []

        def look(step: Step, truth: torch.Tensor, rehearsed: tuple[torch.Tensor, ...]) -> None:
            time = (step.time or 0.0) / Clock.of(pipe.scheduler).span
            if step.index == len(self.times):
                self.times.append(time)
            wide = bool(latents) and truth.ndim > 3 and truth.shape[1] == 2 * latents[0].shape[1]
            channels = latents[0].shape[1] if wide else None  # not the variance beside the noise
            wanted = truth[:, :channels].float()
            for age, estimate in enumerate(rehearsed, start=1):
                near = self._factor(time) * estimate[:, :channels].float()
                off = (near - wanted).norm() if self._error == "relative" else (near.norm() - wanted.norm()).abs()
                key = (age, step.index)
                found[-1][key] = max(found[-1].get(key, 0.0), float(off / wanted.norm().clamp_min(1e-12)))

        recorder = Recorder(look, lambda step: tuple(range(min(step.index, self._longest))))
        with watched(pipe, Policy(Every(1), where, Hold(self._longest), fix=recorder), latents):
            for _, run in each_run(pipe, inputs, call, progress, "attention, MLP"):
                latents.clear()
                found.append({})
                run()
        return found
