"""What a pipeline's sampler was given at each step of a run, and what it made of it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from omnicache.calibrate.record import each_run, tapped
from omnicache.calibrate.steps.solver import Solver
from omnicache.errors import OmniCacheError

MOST = 8192
"""Numbers of a latent that are looked at, drawn at random once: what is fitted are a few numbers a step."""


@dataclass
class Tape:
    """Runs of some inputs, all in the same steps.

    Attributes:
        latents: before each step and at the end, ``(steps + 1, inputs, numbers)``, float32, on the pipeline's device.
        outputs: of the model, after guidance, ``(steps, inputs, numbers)``.
        solver: the pipeline's sampler, to take the same steps on numbers of ours.
    """

    latents: torch.Tensor
    outputs: torch.Tensor
    solver: Solver

    @property
    def steps(self) -> int:
        return len(self.outputs)

    def part(self, inputs: int) -> Tape:
        """Of the first ``inputs`` alone."""
        return Tape(self.latents[:, :inputs], self.outputs[:, :inputs], self.solver)


@dataclass
class _Run:
    latents: list[torch.Tensor] = field(default_factory=list)
    outputs: list[torch.Tensor] = field(default_factory=list)
    asked: list[tuple[Any, Mapping[str, Any]]] = field(default_factory=list)
    scheduler: Any = None


def record(pipe: Any, inputs: Sequence[Any], call: Mapping[str, Any], progress: bool = True) -> Tape:
    """Draw the inputs uncached.

    Raises:
        OmniCacheError: what the sampler is given is not understood, or differs from input to input.
    """
    run, runs = _Run(), list[_Run]()

    def around(plain: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        named = dict(zip(("model_output", "timestep", "sample"), args, strict=False)) | kwargs
        output, sample = (named.pop(name, None) for name in ("model_output", "sample"))
        time = named.pop("timestep", None)
        if not isinstance(output, torch.Tensor) or not isinstance(sample, torch.Tensor) or output.shape != sample.shape:
            raise OmniCacheError(
                f"{type(pipe.scheduler).__name__}.step is not given a model's output of the shape of the latents, so its steps "
                "cannot be fitted. Try omnicache-trajectory, or a method that needs no calibration."
            )
        if run.scheduler is None:
            run.scheduler = copy.deepcopy(pipe.scheduler)
        run.latents[-1:] = [some(sample)]  # in place of those after the last step: pipelines may have changed them since
        out = plain(*args, **kwargs)
        after = out[0] if isinstance(out, tuple) else out.prev_sample
        run.outputs.append(some(output))
        run.asked.append((time, {k: v for k, v in named.items() if k != "return_dict"}))
        run.latents.append(some(after))
        return out

    with tapped(pipe.scheduler, "step", around):
        for _, draw in each_run(pipe, inputs, call, progress, "uncached      "):
            run = _Run()
            draw()
            runs.append(run)
    if not runs[0].outputs:
        raise OmniCacheError(f"{type(pipe).__name__} does not step its scheduler, so nothing could be measured.")
    if len({(len(r.outputs), r.latents[0].shape) for r in runs}) > 1:
        raise OmniCacheError("The inputs are drawn in different sizes or numbers of steps; calibrate on inputs that are alike.")
    latents = torch.stack([torch.stack(r.latents) for r in runs], 1)
    outputs = torch.stack([torch.stack(r.outputs) for r in runs], 1)
    return Tape(latents, outputs, Solver(runs[0].scheduler, runs[0].asked))


def some(x: torch.Tensor) -> torch.Tensor:
    """At most ``MOST`` numbers of a tensor, always the same places of the same shape, as float32."""
    flat = x.detach().flatten()
    if len(flat) > MOST:
        flat = flat[torch.randperm(len(flat), generator=torch.Generator().manual_seed(0))[:MOST].sort().values.to(flat.device)]
    return flat.float().clone()
