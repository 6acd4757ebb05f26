"""A fixed list of things to draw with a model of the zoo, the same for every method, and the judge of what comes of them."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from omnicache import zoo
from omnicache.calibrate.layers.batches import batches
from omnicache.errors import OmniCacheError
from omnicache.measure.accuracy import accuracy
from omnicache.zoo.classifier import Classifier

SUBJECTS = ("class_labels", "prompt", "image")
"""Arguments that say what to draw; those that a model suits are the same for all of a task's inputs."""
CALIBRATION_SEED = 1000  # far from those of the inputs


@dataclass(frozen=True)
class Input:
    """One thing to draw.

    Attributes:
        label: what is asked for, in words.
        seed: of the noise.
        call: arguments of the pipeline that ask for it, a generator with this seed among them. For calls of one's own, take
            ``integrations.pipelines.as_call(pipe, input.call, 0)``, which copies the generator.
    """

    label: str
    seed: int
    call: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.label}, seed {self.seed}"


class Task:
    """``count`` inputs of a model, spread evenly over what it can be asked for; the i-th has the seed i.

    A model draws pictures or clips; what is made has the shape ``(n, 3, h, w)`` or ``(n, f, 3, h, w)``, in [0, 1], as float32 on
    the CPU. The same inputs, drawn in the same batches, give the same noise every time.

    Args:
        name: a model of the zoo.
        pipe: its pipeline, ``zoo.load(name)``, on any device.
        count: how many inputs.
        steps: of the sampler; the model's own number if None.
        guidance: scale of classifier-free guidance; the model's own if None.

    Attributes:
        inputs: a list of :class:`Input`.
        settings: arguments that are the same for every call: steps, guidance, size, ``output_type="pt"``.
        frames: of a clip; 1 where the model draws pictures.

    Raises:
        OmniCacheError: there is no such model, nobody knows what it can be asked for, or it takes no guidance.
    """

    def __init__(self, name: str, pipe: Any, count: int, steps: int | None = None, guidance: float | None = None):
        self.name, self.pipe, self.frames = name, pipe, zoo.frames(name)
        self._classes, self._asking = zoo.labels(name), zoo.inputs(name)
        if not self._classes:
            raise OmniCacheError(f"The model {name!r} does not say what it can be asked for; its zoo.json should have labels.")
        usual = zoo.call(name)
        own = {*SUBJECTS, *(argument for call in self._asking.values() for argument in call)}
        self.settings: dict[str, Any] = {key: value for key, value in usual.items() if key not in own}
        self.settings |= {"num_inference_steps": steps or usual["num_inference_steps"], "output_type": "pt"}
        if guidance is not None:
            scale = next((key for key in self.settings if key.endswith("guidance_scale")), None)
            if scale is None:
                raise OmniCacheError(f"The model {name!r} takes no guidance; leave it out.")
            self.settings[scale] = guidance
        labels = list(self._classes)
        self.inputs = [self._input(labels[i * len(labels) // count], seed=i) for i in range(count)]

    @property
    def steps(self) -> int:
        """Of the sampler."""
        return self.settings["num_inference_steps"]

    @property
    def guidance(self) -> float | None:
        """The scale of classifier-free guidance, or the largest where it grows along a clip; None without guidance."""
        return next((value for key, value in self.settings.items() if key.endswith("guidance_scale")), None)

    @property
    def unit(self) -> str:
        """What one input gives: "picture" or "clip"."""
        return "picture" if self.frames == 1 else "clip"

    @cached_property
    def judge(self) -> Classifier:
        """The model's classifier: logits and features of pictures."""
        return zoo.classifier(self.name)

    @cached_property
    def classes(self) -> Tensor:
        """The class that the judge should see in what is made of each input, ``(count,)``."""
        return torch.tensor([self._classes[one.label] for one in self.inputs])

    def others(self, count: int) -> list[Input]:
        """Inputs to calibrate on: two seeds each of labels that are not in the task, as long as there are such.

        ``omnicache.calibrate(task.pipe, [one.call for one in task.others(8)], method, **task.settings)``
        """
        labels, taken = list(self._classes), {one.label for one in self.inputs}
        free = len(taken) < len(labels)
        found = []
        for i in range(count):
            at = (i // 2) * len(labels) // max(count // 2, 1) + 3
            while free and labels[at % len(labels)] in taken:
                at += 1
            found.append(self._input(labels[at % len(labels)], seed=CALIBRATION_SEED + i))
        return found

    def with_other_seeds(self, further: int) -> Task:
        """The same inputs with seeds that are larger by so much."""
        other = copy(self)
        other.inputs = [
            replace(one, seed=s, call={**one.call, "generator": torch.Generator().manual_seed(s)})
            for one in self.inputs
            for s in (one.seed + further,)
        ]
        return other

    def thinned(self, every: int) -> Task:
        """Every so-manieth of the inputs, beginning with the first."""
        few = copy(self)
        few.inputs = self.inputs[::every]
        few.__dict__.pop("classes", None)  # of all inputs, where it was worked out
        return few

    @torch.no_grad()
    def draw(self, start: int = 0, stop: int | None = None) -> Tensor:
        """What the pipeline makes of the inputs from ``start`` up to ``stop``, in as few calls as it can take them."""
        asked = [one.call for one in self.inputs[start:stop]]
        return torch.cat([self.pipe(**call)[0].float().cpu() for call in batches(self.pipe, asked, self.settings, len(asked))])

    def seen(self, made: Tensor) -> Tensor:
        """The pictures ``(n, 3, h, w)`` in which the judge looks for what was asked: of a clip its first frame."""
        return made if self.frames == 1 else made[:, 0]

    def recognised(self, made: Tensor, start: int = 0) -> Tensor:
        """Whether the judge sees what was asked for, ``(n,)`` bool, in what was made of the inputs from ``start`` on."""
        return accuracy(self.judge, self.seen(made), self.classes[start : start + len(made)])

    def share_recognised(self, made: Tensor) -> float:
        """The share of what was made of the first inputs in which the judge sees what was asked for."""
        return float(self.recognised(made).float().mean())

    def _input(self, label: str, seed: int) -> Input:
        return Input(label, seed, {**self._asking[label], "generator": torch.Generator().manual_seed(seed)})
