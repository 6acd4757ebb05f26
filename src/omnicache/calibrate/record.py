"""Runs a pipeline uncached and looks on: outputs of the denoiser, rehearsed estimates, latents at the scheduler."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from omnicache.calibrate.progress import progress as bar
from omnicache.errors import OmniCacheError
from omnicache.integrations.pipelines import as_call, denoisers, with_scheduler
from omnicache.models import discover
from omnicache.plan import Plan
from omnicache.policy import Corrector, Policy
from omnicache.runtime.clock import Tap
from omnicache.runtime.session import Session
from omnicache.runtime.step import Step

Sink = Callable[[Step, torch.Tensor, tuple[torch.Tensor, ...]], None]


@dataclass(frozen=True, eq=False)
class Onlooker(Corrector):
    """A corrector that corrects nothing: it tells ``sink`` the true output of every step."""

    sink: Sink

    def learn(self, state: Any, step: Step, truth: torch.Tensor, rehearsed: tuple[torch.Tensor, ...]) -> Any:
        self.sink(step, truth, rehearsed)
        return None


@dataclass(frozen=True, eq=False)
class Recorder(Onlooker):
    """One that asks for rehearsals, and tells of them too (none where the history was too short).

    Attributes:
        lags: per step, which estimates to rehearse; see ``Corrector.rehearse``.
    """

    lags: Callable[[Step], tuple[int, ...]]

    def rehearse(self, step: Step) -> tuple[int, ...]:
        return self.lags(step)


def one_denoiser(pipe: Any) -> torch.nn.Module:
    found = denoisers(pipe)
    if len(found) != 1 or with_scheduler(pipe) is None:
        raise OmniCacheError("Calibration needs a pipeline with one denoiser and a scheduler.")
    return found[0]


@contextmanager
def tapped(thing: Any, name: str, around: Callable[..., Any]) -> Iterator[None]:
    """``around(plain, *args, **kwargs)`` in place of a method of an object."""
    tap = Tap(thing, name, around)
    setattr(thing, name, tap)
    try:
        yield
    finally:
        tap.remove()


@contextmanager
def attached(pipe: Any, plan: Plan) -> Iterator[Session]:
    """The pipeline with a plan, whatever it was made for."""
    session = Session(discover(one_denoiser(pipe)), plan, with_scheduler(pipe))
    try:
        yield session
    finally:
        session.detach()


@contextmanager
def collected(scheduler: Any, latents: list[torch.Tensor]) -> Iterator[None]:
    """``latents`` gets ``x_0 ... x_T`` of every run made inside, as the scheduler sees them; clear it between runs."""

    def around(plain: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        out = plain(*args, **kwargs)
        sample = kwargs.get("sample", args[2] if len(args) > 2 else None)
        if not latents and sample is not None:
            latents.append(sample.detach().float().clone())
        after = out[0] if isinstance(out, tuple) else out.prev_sample
        latents.append(after.detach().float().clone())
        return out

    with tapped(scheduler, "step", around):
        yield


@contextmanager
def watched(pipe: Any, policy: Policy, latents: list[torch.Tensor] | None = None, inside: Plan | None = None) -> Iterator[Session]:
    """The pipeline with a policy attached that computes everything, and its latents collected; see :func:`collected`.

    A plan ``inside`` acts in what is computed.
    """
    policies = (policy, *inside.policies) if inside else (policy,)
    with ExitStack() as stack:
        session = stack.enter_context(attached(pipe, Plan("calibration", policies, min_steps=0)))
        if latents is not None:
            stack.enter_context(collected(pipe.scheduler, latents))
        yield session


def each_run(
    pipe: Any, inputs: Sequence[Any], call: Mapping[str, Any], progress: bool, label: str
) -> Iterator[tuple[int, Callable[[], Any]]]:
    """``(number, run)`` for every input, with a progress bar; ``run()`` calls the pipeline."""
    with bar(label, len(inputs), progress) as done, torch.no_grad():
        for i in range(len(inputs)):
            yield i, lambda i=i: pipe(**{**call, **as_call(pipe, inputs[i], seed=i)})
            done()
