"""Correctors at the sampler: what they make of the arguments of a scheduler's step, before it is taken."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from omnicache.policy import Sampling
from omnicache.runtime.call import Call
from omnicache.runtime.clock import Inputs

if TYPE_CHECKING:
    from omnicache.runtime.run import Run

PLACES = {"model_output": 0, "sample": 2}
"""Where diffusers' schedulers take what is exchanged."""


def exchanged(run: Run, inputs: Inputs) -> Inputs:
    """The arguments of the scheduler's step that follows the step in progress of ``run``."""
    fixing, clock = run.session.plan.fixing, run.clock
    if fixing is None or fixing.fix is None or not fixing.fix.samples or clock is None or run.disabled is not None:
        return inputs
    output, sample = (_find(inputs, name) for name in PLACES)
    if output is None or sample is None:
        run.trace.note(
            f"{type(fixing.fix).__name__} did nothing: what {type(clock.scheduler).__name__}.step was given was not understood."
        )
        return inputs
    step = run.place(run.at)
    following = run.place(run.at + 1).sigma
    given = Sampling(
        step,
        output,
        sample,
        run.acted == run.at,
        1.0 if step.time is None else step.time / clock.span,
        None if step.sigma is None or following is None else (step.sigma, following),
        _spread(clock.scheduler, step.sigma),
    )
    state = run.correctors[fixing.fix] if fixing.fix in run.correctors else fixing.fix.init()
    output, sample, run.correctors[fixing.fix] = fixing.fix.sample(state, given)
    return _with(_with(inputs, "model_output", output), "sample", sample)


def lagging(run: Run, call: Call) -> Call:
    """The call with the time that its latents are at, where a corrector has left some of the scheduler's way for later."""
    fixing, name = run.session.plan.fixing, call.time_name
    if fixing is None or fixing.fix not in run.correctors or run.disabled is not None:
        return call
    assert fixing.fix is not None
    factor = fixing.fix.lag(run.correctors[fixing.fix])
    if factor == 1.0:
        return call
    if name is None or not run.tells:
        run.trace.note("The model is told the times that the scheduler lists, although some steps were shorter than listed.")
        return call
    return call.given(**{name: call.bound[name] * factor})


def _find(inputs: Inputs, name: str) -> torch.Tensor | None:
    args, kwargs = inputs
    place = PLACES[name]
    found = args[place] if place < len(args) else kwargs.get(name)
    return found if isinstance(found, torch.Tensor) else None


def _with(inputs: Inputs, name: str, exchanged: torch.Tensor) -> Inputs:
    args, kwargs = inputs
    place = PLACES[name]
    if place < len(args):
        return (*args[:place], exchanged, *args[place + 1 :]), kwargs
    return args, {**kwargs, name: exchanged}


def _spread(scheduler: Any, sigma: float | None) -> float:
    """See ``Sampling``. Such schedulers begin with noise that is larger than of unit variance."""
    first = float(getattr(scheduler, "init_noise_sigma", 1.0))
    return math.sqrt(1 + sigma**2) if sigma is not None and first > 1.01 else 1.0
