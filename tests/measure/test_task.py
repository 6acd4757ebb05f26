"""What a model of the zoo is asked for: on pipelines made up here, which answer with what they were asked."""

import json

import pytest
import torch
from PIL import Image

from omnicache import zoo
from omnicache.errors import OmniCacheError
from omnicache.measure import Task

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


class Answers:
    """Keeps its calls, and draws the mean of each input's noise."""

    components = {}  # noqa: RUF012  (as of diffusers' pipelines, which take lists)

    def answer(self, call, shape):
        self.calls = [*getattr(self, "calls", []), call]
        each = call["generator"] if isinstance(call["generator"], list) else [call["generator"]]
        return (torch.stack([torch.rand(shape, generator=g) for g in each]),)


class ByPrompt(Answers):
    def __call__(self, prompt=None, num_inference_steps=50, guidance_scale=7.5, generator=None, output_type="pil"):
        return self.answer(locals() | {"self": None}, (3, 8, 8))


class ByFirstFrame(Answers):
    def __call__(self, image, num_inference_steps=25, motion_bucket_id=127, generator=None, output_type="pil"):
        return self.answer(locals() | {"self": None}, (5, 3, 8, 8))


def model(folder, name, **about):
    (folder / name).mkdir(parents=True)
    (folder / name / "model_index.json").write_text("{}")
    (folder / name / "zoo.json").write_text(json.dumps(about))


@pytest.fixture
def place(monkeypatch, tmp_path):
    monkeypatch.setenv("OMNICACHE_ZOO", str(tmp_path))
    labels = {f"prompt {i}": i % 3 for i in range(9)}
    usual = {"prompt": "prompt 4", "guidance_scale": 3.0, "num_inference_steps": 28}
    model(tmp_path, "prompts", labels=labels, call=usual, classifier="emoji")
    inputs = {name: {"image": f"{name}.png", "motion_bucket_id": i} for i, name in enumerate(COLOURS)}
    usual = {**inputs["green"], "max_guidance_scale": 2.0, "num_inference_steps": 25}
    labels = {name: i for i, name in enumerate(COLOURS)}
    model(tmp_path, "firsts", labels=labels, call=usual, inputs=inputs, frames=5, classifier="emoji")
    for name, colour in COLOURS.items():
        Image.new("RGB", (4, 4), colour).save(tmp_path / "firsts" / f"{name}.png")
    return tmp_path


def seeds(call):
    each = call["generator"] if isinstance(call["generator"], list) else [call["generator"]]
    return [g.initial_seed() for g in each]


def test_inputs_are_spread_over_the_labels_and_each_has_a_seed(place):
    task = Task("prompts", ByPrompt(), count=3)
    assert [str(one) for one in task.inputs] == ["prompt 0, seed 0", "prompt 3, seed 1", "prompt 6, seed 2"]
    assert [one.label for one in Task("prompts", ByPrompt(), count=18).inputs[:4]] == ["prompt 0"] * 2 + ["prompt 1"] * 2
    assert task.steps == 28 and task.guidance == 3.0 and task.frames == 1 and task.unit == "picture"
    assert Task("prompts", ByPrompt(), count=3, steps=5).settings["num_inference_steps"] == 5


def test_a_thinner_task_has_every_third_input_and_its_class(place):
    task = Task("prompts", ByPrompt(), count=9)
    assert task.classes.tolist() == [0, 1, 2] * 3  # worked out before, and not kept for the thinner one
    few = task.thinned(4)
    assert [str(one) for one in few.inputs] == ["prompt 0, seed 0", "prompt 4, seed 4", "prompt 8, seed 8"]
    assert few.classes.tolist() == [0, 1, 2] and len(task.inputs) == 9


def test_prompts_are_drawn_in_one_call_with_the_same_noise_every_time(place):
    task = Task("prompts", pipe := ByPrompt(), count=3)
    first, again = task.draw(0, 2), task.draw(0, 2)
    assert torch.equal(first, again) and first.shape == (2, 3, 8, 8)
    assert torch.equal(task.draw(1, 2), first[1:]) and torch.equal(task.draw(2), task.draw()[2:])
    call = pipe.calls[0]
    assert call["prompt"] == ["prompt 0", "prompt 3"] and seeds(call) == [0, 1]
    assert (call["guidance_scale"], call["num_inference_steps"], call["output_type"]) == (3.0, 28, "pt")


def test_a_first_frame_and_how_it_moves_replace_those_of_the_usual_call(place):
    task = Task("firsts", pipe := ByFirstFrame(), count=3)
    task.settings.pop("max_guidance_scale")
    made = task.draw(0, 3)
    assert made.shape == (3, 5, 3, 8, 8)  # what cannot be put in one call is drawn in several, in order
    assert [call["motion_bucket_id"] for call in pipe.calls] == [0, 1, 2]
    assert [call["image"].getpixel((0, 0)) for call in pipe.calls] == list(COLOURS.values())
    assert [seeds(call) for call in pipe.calls] == [[0], [1], [2]]
    assert torch.equal(made[1:2], task.draw(1, 2))


def test_guidance_that_grows_along_a_clip_is_given_by_its_largest(place):
    task = Task("firsts", ByFirstFrame(), count=3)
    assert (task.guidance, task.unit) == (2.0, "clip")
    assert set(task.settings) == {"max_guidance_scale", "num_inference_steps", "output_type"}


def test_other_inputs_are_none_of_the_task_as_long_as_there_are_such(place):
    task = Task("prompts", ByPrompt(), count=6)
    drawn = {one.label for one in task.inputs}
    others = task.others(6)
    assert not drawn & {one.label for one in others} and len({one.label for one in others}) == 3
    assert not {one.seed for one in task.inputs} & {one.seed for one in others}
    assert len({one.seed for one in others}) == 6
    assert len(Task("prompts", ByPrompt(), count=9).others(4)) == 4  # all labels are taken; seeds are not


def test_the_judge_looks_at_pictures_and_at_the_first_frames_of_clips(place, monkeypatch):
    def by_colour(pictures):
        assert pictures.shape[1:] == (3, 8, 8)
        return pictures.mean((2, 3))

    monkeypatch.setattr(zoo, "classifier", lambda name: by_colour)
    pure = torch.eye(3)[:, :, None, None].expand(3, 3, 8, 8)
    assert Task("prompts", ByPrompt(), count=9).recognised(pure).tolist() == [True, True, True]
    assert Task("prompts", ByPrompt(), count=9).recognised(pure, start=4).tolist() == [False, False, False]
    clips = torch.zeros(3, 5, 3, 8, 8)
    clips[:, 0], clips[:, 1:] = pure, 2 * pure.flip(0)[:, None]
    assert Task("firsts", ByFirstFrame(), count=3).recognised(clips).tolist() == [True, True, True]
    assert Task("firsts", ByFirstFrame(), count=3).recognised(clips.flip(1)).tolist() == [False, True, False]


def test_a_model_that_says_nothing_of_itself_is_refused(place):
    model(place, "silent")
    with pytest.raises(OmniCacheError, match=r"'silent' does not say what it can be asked for; its zoo\.json should have labels"):
        Task("silent", ByPrompt(), count=3)
