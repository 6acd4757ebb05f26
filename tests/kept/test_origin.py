"""What is kept of one origin is not taken for another's."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler

from omnicache.kept.origin import digest, sources, surroundings


class Pipeline:
    def __init__(self):
        torch.manual_seed(0)
        self.transformer, self.text_encoder = torch.nn.Linear(3, 4), torch.nn.Linear(2, 2)
        self.scheduler = DDIMScheduler()


def change(what):
    pipe = Pipeline()
    with torch.no_grad():
        what(pipe)
    return digest(surroundings(pipe))


@pytest.mark.parametrize(
    "what",
    [
        lambda pipe: pipe.transformer.weight.mul_(2),
        lambda pipe: pipe.text_encoder.bias.mul_(2),
        lambda pipe: setattr(pipe, "scheduler", EulerDiscreteScheduler()),
        lambda pipe: setattr(pipe, "scheduler", DDIMScheduler(clip_sample=False)),
        lambda pipe: pipe.transformer.half(),
        lambda pipe: setattr(pipe.transformer, "scaling", {"default": 0.5}),
    ],
    ids=["weights", "other weights", "scheduler", "its settings", "dtype", "adapter"],
)
def test_other_pipelines_are_of_another_origin(what):
    assert change(what) != change(lambda pipe: None) == change(lambda pipe: None)


def test_threads_are_a_part_of_the_machine():
    before = torch.get_num_threads()
    plain = change(lambda pipe: None)
    try:
        torch.set_num_threads(before + 1)
        assert change(lambda pipe: None) != plain
    finally:
        torch.set_num_threads(before)


def test_weights_that_are_elsewhere_are_told_by_their_names():
    pipe = Pipeline()
    pipe.text_encoder.to("meta")
    assert surroundings(pipe)["weights"]["text_encoder"][1] == [
        ["weight", [2, 2], "torch.float32", []],
        ["bias", [2], "torch.float32", []],
    ]


def test_another_process_finds_the_same():
    """diffusers keeps a list in a scheduler's config whose order is another in every process."""
    code = (
        "import torch\nfrom diffusers import DDIMScheduler\nfrom omnicache.kept.origin import digest, surroundings\n"
        "class P: pass\np = P()\np.scheduler = DDIMScheduler()\ntorch.manual_seed(0)\np.unet = torch.nn.Linear(2, 2)\n"
        "print(digest(surroundings(p)))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1


def test_a_folder_of_sources_can_be_left_out():
    assert sources() != sources(frozenset({"methods"}))


def test_tensors_generators_and_arrays_count_by_what_they_hold():
    one, other = torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)
    assert digest({"g": one}) == digest({"g": torch.Generator().manual_seed(1)}) != digest({"g": other})
    assert digest([torch.zeros(2)]) != digest([torch.ones(2)]) and digest((1, None, "x")) == digest([1, None, "x"])
