"""The numbers of ``Multistep``, fitted while runs of all inputs take their steps together."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from omnicache.calibrate.progress import progress as bar
from omnicache.calibrate.record import attached
from omnicache.calibrate.steps.tape import Tape, some
from omnicache.calibrate.steps.together import ask, together
from omnicache.correctors.multistep import Pairs, combined
from omnicache.errors import OmniCacheError
from omnicache.granularity import Denoiser
from omnicache.integrations.pipelines import as_call
from omnicache.plan import Plan
from omnicache.policy import Corrector, Policy, Sampling
from omnicache.triggers import Table

RIDGE = 1e-7
Weights = tuple[tuple[float, ...] | None, ...]


@dataclass(frozen=True)
class Fitted:
    """A schedule with its numbers.

    Attributes:
        off: how far the latents before each step, and at the end, are from the uncached run's: mean squares, ``(steps + 1,
            inputs)``.
    """

    marks: str
    weights: Weights
    off: torch.Tensor


def fit(
    pipe: Any,
    inputs: Sequence[Any],
    call: Mapping[str, Any],
    uncached: Tape,
    marks: str,
    history: int,
    inside: Plan | None = None,
    progress: bool = False,
    label: str = "",
) -> Fitted:
    """Draw the inputs with a schedule, and find out on the way how each reused step leads back to where the uncached run went.

    The runs wait for each other at every step. At a reused one, the output that would lead from where each of them stands to where
    it would stand uncached is regressed on what is known there, all inputs together, and all go on with the result. So every step
    is fitted to what the steps before it have really made of the latents, which is worth 15 dB to numbers fitted to the uncached
    run's own values.

    Args:
        uncached: runs of the same inputs.
        marks: a character a step.
        history: how many computed steps to keep.
        inside: a plan for what is computed.
    """
    fitting = Fitting(uncached, marks, history)
    policies = (Policy(Table(marks), Denoiser(), fix=_Fits(marks, history)), *(inside.policies if inside else ()))
    twins = [_twin(pipe) for _ in inputs]
    calls = [{**call, **as_call(pipe, given, seed=i)} for i, given in enumerate(inputs)]
    jobs = [functools.partial(twin, **one) for twin, one in zip(twins, calls, strict=True)]
    with (
        attached(pipe, Plan("calibration", policies, min_steps=0)) as session,
        bar(label, len(marks), progress) as done,
        torch.no_grad(),
    ):
        for twin in twins:
            session.audience.admit(twin)
        together(jobs, lambda given: (done(), fitting.answer(given))[1])
    return Fitted(marks, tuple(fitting.weights), torch.stack(fitting.off))


class Fitting:
    """The numbers of one schedule, worked out step by step.

    Where the sampler would go is asked of the pipeline's own scheduler, on the same numbers of the latents; noise that it adds is
    drawn anew for both the uncached run and this one, and drops out of their difference.
    """

    def __init__(self, uncached: Tape, marks: str, history: int):
        self.uncached, self.marks, self.history = uncached, marks, history
        self.leader, self.follower = uncached.solver.start(), uncached.solver.start()
        self.known: list[torch.Tensor] = []
        self.weights: list[tuple[float, ...] | None] = []
        self.off = [torch.zeros(uncached.latents.shape[1])]

    def answer(self, given: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[float, ...] | None:
        """The numbers of the next step, from the latents and the outputs of all runs; None if it is computed."""
        i = len(self.weights)
        if i >= len(self.marks):
            raise OmniCacheError(f"A run took more than the {len(self.marks)} steps of the uncached one.")
        x, out = (torch.stack(part) for part in zip(*given, strict=True))
        before, true = self.uncached.latents[i], self.uncached.outputs[i]
        led = self.leader.step(before, true)
        numbers = None
        if self.marks[i] == "#":
            self.known = [out, x, *self.known][: 2 * self.history]
        else:
            here, length = self.follower.look(x, true)
            wanted = true + (led - here) / length if abs(length) > 1e-9 else true
            terms = [x, *self.known]
            numbers = tuple(regress(terms, wanted))
            out = sum((w * t for w, t in zip(numbers, terms, strict=True)), torch.zeros_like(x))
        self.off.append((self.follower.step(x, out) - led).square().mean(1).cpu())
        self.weights.append(numbers)
        return numbers


@dataclass(frozen=True, eq=False)
class _Fits(Corrector):
    """Asks for the numbers of ``Multistep`` at every step, and does as it would."""

    marks: str
    history: int

    def init(self) -> Pairs:
        return ()

    def sample(self, state: Any, given: Sampling) -> tuple[torch.Tensor, torch.Tensor, Any]:
        numbers = ask((some(given.sample), some(given.output)))
        if (numbers is None) is given.reused:
            raise OmniCacheError(
                f"Step {given.step.index} was to be {'computed' if numbers is None else 'reused'}, and was not; "
                "print(run) after a run with a plan of this kind says why."
            )
        if numbers is None:
            return given.output, given.sample, ((given.output.clone(), given.sample.clone()), *state)[: self.history]
        return combined(given, state, numbers), given.sample, state


def regress(terms: Sequence[torch.Tensor], wanted: torch.Tensor) -> list[float]:
    """The least-squares sum of terms, all of one shape; of terms that depend on each other the smallest one, in terms of size 1."""
    a = torch.stack([t.flatten() for t in terms]).double().cpu()
    size = a.norm(dim=1).clamp_min(1e-30)
    a = a / size[:, None]
    normal = a @ a.T + RIDGE * torch.eye(len(a), dtype=a.dtype)
    return (torch.linalg.solve(normal, a @ wanted.flatten().double().cpu()) / size).tolist()


def _twin(pipe: Any) -> Any:
    """The same pipeline with a scheduler of its own."""
    twin = copy.copy(pipe)
    twin.scheduler = copy.deepcopy(pipe.scheduler)
    if hasattr(twin, "set_progress_bar_config"):
        twin.set_progress_bar_config(disable=True)
    return twin
