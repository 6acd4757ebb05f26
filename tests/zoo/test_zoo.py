import json
import sys

import pytest
import torch

from omnicache import zoo
from omnicache.errors import OmniCacheError
from omnicache.measure import accuracy

shipped = pytest.mark.skipif("emoji" not in zoo.names(), reason="the emoji weights are not in this checkout")


@pytest.fixture(scope="module")
def pipe():
    pytest.importorskip("diffusers")
    return zoo.load("emoji")


def test_an_unknown_name_is_refused_with_the_nearest(monkeypatch, tmp_path):
    for name in ("emoji", "flowers"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model_index.json").touch()
    (tmp_path / "notes").mkdir()
    monkeypatch.setattr(zoo, "_HERE", tmp_path)
    assert zoo.names() == ["emoji", "flowers"]
    assert zoo.path("emoji") == tmp_path / "emoji"
    with pytest.raises(OmniCacheError, match="no model 'emojis'; did you mean 'emoji'"):
        zoo.path("emojis")


def test_an_empty_zoo_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(zoo, "_HERE", tmp_path)
    with pytest.raises(OmniCacheError, match="has none"):
        zoo.load("emoji")


def test_without_diffusers_the_message_says_what_to_install(monkeypatch, tmp_path):
    (tmp_path / "emoji").mkdir()
    (tmp_path / "emoji" / "model_index.json").touch()
    monkeypatch.setattr(zoo, "_HERE", tmp_path)
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
