import json

import pytest
import torch
from safetensors import safe_open

from omnicache.zoo.classifier import Classifier


@pytest.fixture
def model() -> Classifier:
    torch.manual_seed(0)
    return Classifier(7, channels=(8, 16, 24)).eval()


def test_shapes(model: Classifier):
    x = torch.rand(2, 3, 64, 64)
    assert model.features(x).shape == (2, 24)
    assert model(x).shape == (2, 7)


def test_logits_are_linear_in_the_features(model: Classifier):
    x = torch.rand(2, 3, 64, 64)
    by_hand = model.features(x) @ model.head.weight.T + model.head.bias
    assert torch.allclose(model(x), by_hand, atol=1e-6)


def test_a_picture_does_not_depend_on_its_batch(model: Classifier):
    x = torch.rand(4, 3, 64, 64)
    assert torch.allclose(model(x)[1:2], model(x[1:2]), atol=1e-5)


def test_round_trip_through_a_half_precision_file(model: Classifier, tmp_path):
    model.save(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert {str(file.get_tensor(k).dtype) for k in file.keys()} == {"torch.float16"}  # noqa: SIM118
    back = Classifier.load(tmp_path)
    assert not back.training
    assert back.head.weight.dtype == torch.float32
    assert torch.equal(back.head.weight, model.head.weight.half().float())
    x = torch.rand(2, 3, 64, 64)
    assert torch.allclose(back(x), model(x), atol=1e-2)


def test_the_config_rebuilds_the_shape(model: Classifier, tmp_path):
    model.save(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text()) == {"classes": 7, "channels": [8, 16, 24], "groups": 8}


def test_the_default_is_small_enough_to_ship():
    assert sum(p.numel() for p in Classifier(100).parameters()) * 2 < 2_000_000
    assert sum(p.numel() for p in Classifier(1000).parameters()) * 2 < 2_000_000
