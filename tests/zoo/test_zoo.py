import json
import os
import sys

import pytest
import torch
from PIL import Image

from omnicache import zoo
from omnicache.errors import OmniCacheError
from omnicache.measure import accuracy

shipped = pytest.mark.skipif("emoji" not in zoo.names(), reason="the emoji weights are not in this checkout")


@pytest.fixture(scope="module")
def pipe():
    pytest.importorskip("diffusers")
    return zoo.load("emoji")


def models(folder, *names):
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "model_index.json").touch()
    return folder


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """An installation without any model, in a folder of its own."""
    monkeypatch.setattr(zoo, "_HERE", tmp_path / "package")
    monkeypatch.setattr(zoo, "_CLONE", tmp_path / "zoo")
    monkeypatch.delenv("OMNICACHE_ZOO", raising=False)
    return tmp_path


def test_an_unknown_name_is_refused_with_the_nearest(bare):
    models(bare / "package", "emoji", "flowers")
    (bare / "package" / "notes").mkdir()
    assert zoo.names() == ["emoji", "flowers"]
    assert zoo.path("emoji") == bare / "package" / "emoji"
    with pytest.raises(OmniCacheError, match="no model 'emojis'; did you mean 'emoji'"):
        zoo.path("emojis")


def test_the_package_comes_before_the_clone_and_that_before_further_folders(bare, monkeypatch):
    models(bare / "package", "emoji")
    models(bare / "zoo", "emoji", "emoji-text")
    models(bare / "further", "emoji-text", "mine")
    models(bare / "last", "mine", "yours")
    monkeypatch.setenv("OMNICACHE_ZOO", os.pathsep.join([str(bare / "further"), "", str(bare / "last"), str(bare / "none")]))
    assert zoo.names() == ["emoji", "emoji-text", "mine", "yours"]
    assert [zoo.path(name).parent.name for name in zoo.names()] == ["package", "zoo", "further", "last"]


def test_a_model_of_the_repository_that_is_not_here_says_how_to_get_it(bare):
    models(bare / "package", "emoji")
    with pytest.raises(OmniCacheError, match=r"'emoji-motion' is in the folder zoo/ .* clone the repository .* OMNICACHE_ZOO"):
        zoo.load("emoji-motion")
    with pytest.raises(OmniCacheError, match="did you mean 'emoji-motion'"):
        zoo.path("emoji-motions")


def test_a_model_says_how_it_is_called_and_who_judges_it(bare):
    folder = models(bare / "zoo", "clips") / "clips"
    (folder / "model_index.json").write_text("{}")
    assert zoo.call("clips") == {} and zoo.labels("clips") == {}
    (folder / "zoo.json").write_text(json.dumps({"call": {"height": 64}, "classifier": "emoji", "labels": {"fox": 13}}))
    assert zoo.call("clips") == {"height": 64}
    assert zoo.labels("clips") == {"fox": 13}
    with pytest.raises(OmniCacheError, match="no model 'emoji'"):
        zoo.classifier("clips")


def test_a_model_says_how_each_of_its_labels_is_asked_for(bare):
    folders = {name: models(bare / "zoo", name) / name for name in ("classes", "prompts", "firsts")}
    for name, index in {"classes": {"id2label": {"0": "cat", "1": "fox"}}, "prompts": {}, "firsts": {}}.items():
        (folders[name] / "model_index.json").write_text(json.dumps(index))
    (folders["prompts"] / "zoo.json").write_text(json.dumps({"labels": {"a fox": 1}}))
    Image.new("RGB", (4, 4), "red").save(folders["firsts"] / "fox.png")
    about = {"labels": {"fox": 1}, "frames": 16, "inputs": {"fox": {"image": "fox.png", "motion_bucket_id": 64}}}
    (folders["firsts"] / "zoo.json").write_text(json.dumps(about))
    assert zoo.inputs("classes") == {"cat": {"class_labels": [0]}, "fox": {"class_labels": [1]}}
    assert zoo.inputs("prompts") == {"a fox": {"prompt": "a fox"}}
    assert zoo.frames("classes") == zoo.frames("prompts") == 1
    found = zoo.inputs("firsts")["fox"]
    assert found["image"].getpixel((0, 0)) == (255, 0, 0) and found["motion_bucket_id"] == 64
    assert zoo.frames("firsts") == 16


def test_an_empty_zoo_says_so(bare):
    with pytest.raises(OmniCacheError, match="has none"):
        zoo.load("emoji")


def test_without_diffusers_the_message_says_what_to_install(bare, monkeypatch):
    models(bare / "package", "emoji")
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(OmniCacheError, match=r'pip install "omnicache\[diffusers\]"'):
        zoo.load("emoji")


@shipped
def test_the_folder_is_small_enough_to_ship():
    sizes = [f.stat().st_size for f in zoo.path("emoji").rglob("*") if f.is_file()]
    assert sum(sizes) <= 20e6
    assert max(sizes) <= 15e6


@shipped
def test_the_pipeline_is_float32_and_quiet(capfd):
    pytest.importorskip("diffusers")
    pipe = zoo.load("emoji")
    assert pipe.transformer.dtype == pipe.vae.dtype == torch.float32
    assert not pipe.transformer.training and not pipe.vae.training
    pipe([0], num_inference_steps=1, output_type="pt")
    said = "".join(capfd.readouterr())
    assert "%" not in said and "Expected types" not in said


@shipped
def test_another_type_on_request():
    pytest.importorskip("diffusers")
    assert zoo.load("emoji", torch.bfloat16).transformer.dtype == torch.bfloat16


@shipped
def test_plain_diffusers_reads_the_folder_alike(pipe):
    from diffusers import DiTPipeline

    plain = DiTPipeline.from_pretrained(str(zoo.path("emoji")))
    assert plain.transformer.dtype == torch.float32
    for name, value in plain.transformer.state_dict().items():
        assert torch.equal(value, pipe.transformer.state_dict()[name]), name


@shipped
def test_the_call_that_suits_it_is_all_it_needs(pipe):
    made = pipe(**zoo.call("emoji") | {"num_inference_steps": 1, "output_type": "pt"})
    assert made.images.shape == (1, 3, 64, 64)


@shipped
def test_every_class_has_a_name(pipe):
    index = json.loads((zoo.path("emoji") / "model_index.json").read_text())["id2label"]
    head = zoo.classifier("emoji").head
    assert sorted(map(int, index)) == list(range(head.out_features))
    assert pipe.get_label_ids([index["0"]]) == [0]


@shipped
def test_the_classifier_sees_the_class_that_was_asked_for(pipe):
    label = torch.arange(0, 100, 10)
    g = torch.Generator().manual_seed(0)
    pictures = pipe(label.tolist(), guidance_scale=2.0, num_inference_steps=20, generator=g, output_type="pt").images
    assert pictures.shape == (10, 3, 64, 64)
    assert accuracy(zoo.classifier("emoji"), pictures, label).float().mean() >= 0.8
