"""A model with what is drawn with it, inside the process of one contender."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from omnicache import zoo
from omnicache.integrations.pipelines import denoisers
from omnicache.measure.task import Task


@dataclass(frozen=True)
class Spec:
    """What all processes of a comparison are told.

    Attributes:
        model: of the zoo.
        samples: held-out inputs.
        tuning: inputs that settings are chosen by.
        goals: PSNR to the uncached pictures, in dB.
        threads: of torch.
        budget: seconds after which tuning begins no further method.
        folder: for what a contender makes: plans.
    """

    model: str
    steps: int | None
    guidance: float | None
    samples: int
    tuning: int
    goals: tuple[float, ...]
    threads: int
    folder: Path
    budget: float = 600.0


class Scene:
    """Loads the pipeline, anew whenever asked, and draws.

    Attributes:
        task: the held-out inputs.
        tuning: the same with the tuning inputs.
    """

    def __init__(self, spec: Spec):
        self.spec = spec
        self.load()

    def load(self) -> None:
        """Begin with a fresh pipeline."""
        spec = self.spec
        self.pipe: Any = zoo.load(spec.model)
        self.task = Task(spec.model, self.pipe, spec.samples, spec.steps, spec.guidance)
        self.tuning = copy(self.task)
        self.tuning.inputs = self.task.others(spec.tuning)
        # Both share one dict of settings, which what a contender changes is put into.

    @property
    def denoiser(self) -> torch.nn.Module:
        return denoisers(self.pipe)[0]

    @property
    def steps(self) -> int:
        """Of the sampler, without any contender."""
        return self.spec.steps or zoo.call(self.spec.model)["num_inference_steps"]

    @property
    def inputs(self) -> Sequence[dict[str, Any]]:
        """The tuning inputs as arguments of calls."""
        return [one.call for one in self.tuning.inputs]

    def draw(self, which: str, start: int, stop: int) -> torch.Tensor:
        """Pictures or clips of ``"tuning"`` or ``"held"`` inputs."""
        return (self.tuning if which == "tuning" else self.task).draw(start, stop)
