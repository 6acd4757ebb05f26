"""The models of the clone's ``zoo/``, as far as they are there: each loads as its pipeline, draws, and is small enough."""

import json

import pytest
import torch

from omnicache import zoo
from omnicache.measure import Task

PIPELINES = {
    "emoji-text": ("StableDiffusion3Pipeline", 14e6),
    "emoji-motion": ("LattePipeline", 10e6),
    "emoji-animate": ("StableVideoDiffusionPipeline", 8e6),
    "emoji-unet": ("StableDiffusionPipeline", 8e6),
}


@pytest.fixture(params=PIPELINES)
def name(request) -> str:
    if request.param not in zoo.names():
        pytest.skip(f"the weights of {request.param} are not in this checkout")
    return request.param


def test_it_loads_as_its_pipeline_in_single_precision_and_quietly(name, capfd):
    pytest.importorskip("diffusers")
    pipe = zoo.load(name)
    assert type(pipe).__name__ == PIPELINES[name][0]
    parts = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    assert {p.dtype for part in parts for p in part.parameters()} == {torch.float32}
    assert not any(part.training for part in parts)
    said = "".join(capfd.readouterr())
    assert "%" not in said and "Expected types" not in said


def test_plain_diffusers_reads_the_folder_and_it_draws_in_two_steps(name):
    pytest.importorskip("diffusers")
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(str(zoo.path(name)))
    pipe.set_progress_bar_config(disable=True)
    made = pipe(**zoo.call(name) | {"num_inference_steps": 2, "output_type": "pt", "generator": torch.Generator().manual_seed(0)})
    drawn = made.images if hasattr(made, "images") else made.frames
    assert tuple(drawn.shape) == ((1, 3, 64, 64) if hasattr(made, "images") else (1, 16, 3, 64, 64))
    assert drawn.isfinite().all() and drawn.std() > 0.01


def test_a_task_draws_what_each_label_asks_for_alike_every_time(name):
    pytest.importorskip("diffusers")
    task = Task(name, zoo.load(name), count=4, steps=2)
    assert len({one.label for one in task.inputs}) == 4
    made = task.draw(0, 2)
    assert made.shape == ((2, 3, 64, 64) if task.frames == 1 else (2, task.frames, 3, 64, 64))
    assert torch.equal(made, task.draw(0, 2)) and not torch.equal(made[0], made[1])
    assert task.recognised(made).shape == (2,)


def test_it_is_small_enough_for_the_repository(name):
    sizes = [f.stat().st_size for f in zoo.path(name).rglob("*") if f.is_file()]
    assert sum(sizes) <= PIPELINES[name][1]
    assert max(sizes) <= 15e6


def test_its_card_its_logs_and_its_labels_are_there(name):
    folder = zoo.path(name)
    assert (folder / "README.md").read_text().startswith("---\nlicense: apache-2.0")
    assert (folder / "grid.webp").exists() and list((folder / "log").glob("*.jsonl"))
    assert json.loads((folder / "card.json").read_text())["parameters"]
    classes = zoo.classifier(name).head.out_features
    assert zoo.labels(name) and all(0 <= label < classes for label in zoo.labels(name).values())
