from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch


class Solver:
    """A pipeline's scheduler that takes the steps of a run once more, on numbers of ours.

    Schedulers treat every number of a latent alike, so some of them will do. Noise that a scheduler adds is drawn anew, the same
    for the same step of every solver, so that it drops out of differences between two of them.
    """

    def __init__(self, scheduler: Any, asked: Sequence[tuple[Any, Mapping[str, Any]]]):
        self.scheduler, self.asked, self.taken = copy.deepcopy(scheduler), asked, 0

    def start(self) -> Solver:
        """Another one, before the first step."""
        assert self.taken == 0, "a solver that has taken steps is no beginning"
        return Solver(self.scheduler, self.asked)

    def step(self, sample: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """The latents ``(inputs, numbers)`` after the next step."""
        after = self._step(self.scheduler, sample, output)
        self.taken += 1
        return after

    def look(self, sample: torch.Tensor, output: torch.Tensor) -> tuple[torch.Tensor, float]:
        """Where the next step would go, and by how much that moves with the output: the step's length. Takes no step."""
        here = self._step(copy.deepcopy(self.scheduler), sample, output)
        there = self._step(copy.deepcopy(self.scheduler), sample, 2 * output)
        size = output.square().sum()
        return here, float(((there - here) * output).sum() / size) if size > 0 else 0.0

    def _step(self, scheduler: Any, sample: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        time, more = self.asked[self.taken]
        given = dict(more)
        if given.get("generator") is not None:
            given["generator"] = torch.Generator(sample.device).manual_seed(self.taken)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.taken)
            after = scheduler.step(output[..., None, None], time, sample[..., None, None], **given, return_dict=False)[0]
        return after[..., 0, 0].float()
