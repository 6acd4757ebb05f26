from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from omnicache.errors import OmniCacheError
from omnicache.kernels import weighted_sum
from omnicache.policy import Corrector, Sampling, value
from omnicache.sampler import described

Pairs = tuple[tuple[torch.Tensor, torch.Tensor], ...]
"""Guided output and latents of computed steps, newest first."""


@value
class Multistep(Corrector):
    """Hands the sampler, at reused steps, a fitted sum of what is known: the latents now, and outputs and latents of the last
    computed steps.

    That is a linear multistep method with numbers of its own for every step, as in Adams-Bashforth or DPM-Solver++, but fitted to
    runs of the model. It acts on what guidance has made of the outputs, so that any model and any guidance will do.

    Attributes:
        weights: per step None where it is computed; else the numbers of the latents now, and of the output and the latents of the
            last computed step, the one before it, and so on.
        sampler: the scheduler that they were fitted to, in the words of ``sampler.described``; "" where it is not known.
    """

    weights: tuple[tuple[float, ...] | None, ...]
    sampler: str = ""

    def __post_init__(self) -> None:
        if any(w is not None and len(w) % 2 == 0 for w in self.weights):
            raise OmniCacheError("Multistep: a step has one number for the latents now and two for each computed step.")

    @property
    def keep(self) -> int:
        """Computed steps that are kept."""
        return max((len(w) // 2 for w in self.weights if w is not None), default=0)

    def init(self) -> Pairs:
        return ()

    def misfit(self, scheduler: Any) -> str | None:
        if not self.sampler or (now := described(scheduler)) == self.sampler:
            return None
        return f"its numbers are fitted to the steps of {self.sampler}, and this is {now}. Calibrate again with it"

    def for_steps(self, total: int) -> Multistep:
        raise OmniCacheError(f"numbers that are fitted to {len(self.weights)} steps hold for no others")

    def sample(self, state: Any, given: Sampling) -> tuple[torch.Tensor, torch.Tensor, Any]:
        i = given.step.index
        if i >= len(self.weights) or not any(self.weights[i:]):
            return given.output, given.sample, ()
        known, numbers = state, self.weights[i]
        if numbers is None:  # clones, since pipelines may write to either; they are small, and such steps few
            known = ((given.output.clone(), given.sample.clone()), *known)[: self.keep]
            return given.output, given.sample, known
        if not given.reused or len(numbers) != 1 + 2 * len(known):  # something was computed that was not to be, or lost
            return given.output, given.sample, known
        return combined(given, known, numbers), given.sample, known


def combined(given: Sampling, known: Pairs, numbers: Sequence[float]) -> torch.Tensor:
    """The fitted sum, in the type of the output in whose place it is handed on; summed in float32."""
    terms = [given.sample, *(tensor for pair in known for tensor in pair)]
    return weighted_sum([t.float() for t in terms], tuple(numbers)).to(given.output.dtype)
