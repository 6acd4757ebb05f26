"""Law 10: plan, file, plan is the identity; what is not of this model, this format or this library is refused with a sentence."""

from __future__ import annotations

import copy
import json
import math
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tests.laws.table import Case, Subject, strips
from tests.tiny import Pipe, sample

import omnicache
from omnicache.plan import Plan
from omnicache.weights import Weights

LAW = 10


def test_a_saved_plan_is_the_plan(case: Case, subject: Subject, tmp_path: Path) -> None:
    """Equal, of equal parts, and it draws the same."""
    plan = subject.plan().with_measured(figures=[1, [2.5, None]], worst=math.inf, by_step={3: 0.5})
    path = plan.save(tmp_path / "new" / "a.plan.json")
    loaded = Plan.load(path)
    assert loaded == plan
    assert loaded.to_json() == plan.to_json()
    assert hash(loaded.policies) == hash(plan.policies)
    with omnicache.cache(subject.target, plan) as run:
        drawn, seen = subject.draw(), strips(run)
    with omnicache.cache(subject.target, path) as run:
        assert torch.equal(subject.draw(), drawn)
        assert strips(run) == seen


def written(tmp_path: Path, change: Any = None, text: str | None = None) -> Path:
    """A good plan file, spoiled."""
    data = omnicache.methods()["taylorseer"].plan().to_json()
    if change is not None:
        change(data)
    path = tmp_path / "a.plan.json"
    path.write_text(json.dumps(data) if text is None else text)
    return path


def at(*keys: Any, to: Any) -> Any:
    """Sets one entry, deep inside."""

    def change(data: Any) -> None:
        for key in keys[:-1]:
            data = data[key]
        data[keys[-1]] = to

    return change


def gone(key: str) -> Any:
    return lambda data: data.pop(key)


FIRST = ("policies", 0)
SPOILED = {
    "another format": (at("omnicache_plan", to=2), "format 2"),
    "no format": (gone("omnicache_plan"), "not an OmniCache plan"),
    "an unknown trigger": (at(*FIRST, "when", to={"is": "Evry", "interval": 3}), "'Evry'.*Every"),
    "an unknown class": (at(*FIRST, "how", to={"is": "os.system", "of": "true"}), "'os.system'"),
    "a type that is a list": (at(*FIRST, "how", "is", to=["Hold"]), "damaged"),
    "an unknown field": (at(*FIRST, "how", "inner", "speed", to=3), "'speed'"),
    "a number for a trigger": (at(*FIRST, "when", to=5), "damaged.*when"),
    "a place for a trigger": (at(*FIRST, "when", to={"is": "Stack"}), "damaged.*when"),
    "a word for a number": (at(*FIRST, "when", "b", "interval", to="3"), "damaged.*interval"),
    "a truth for a number": (at(*FIRST, "when", "b", "interval", to=True), "damaged.*interval"),
    "a trigger for a policy": (at(*FIRST, to={"is": "First", "count": 1}), "no Policy"),
    "a word for a policy": (at(*FIRST, to="First"), "no Policy"),
    "no policies": (gone("policies"), "damaged.*policies"),
    "a number for the policies": (at("policies", to=3), "damaged"),
    "no steps": (at("steps", to=0), "`steps`"),
    "more than all steps": (at("steps", to=1e9), "`steps`"),
    "a word for the steps": (at("steps", to="all"), "damaged"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_spoiled_file_is_refused(name: str, tmp_path: Path) -> None:
    change, said = SPOILED[name]
    with pytest.raises(omnicache.OmniCacheError, match=said):
        Plan.load(written(tmp_path, change))


@pytest.mark.parametrize("text", ["", "[]", "3", '"plan"', "not json", "[" * 100_000, '{"omnicache_plan": NaN}'])
def test_what_is_no_plan_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(omnicache.OmniCacheError, match=r"\.plan\.json"):
        Plan.load(written(tmp_path, text=text))


def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    text = written(tmp_path).read_text()
    for end in range(0, len(text), 37):
        with pytest.raises(omnicache.OmniCacheError, match="truncated"):
            Plan.load(written(tmp_path, text=text[:end]))


def with_tensors(tmp_path: Path, seed: int = 0) -> tuple[Plan, Path]:
    """A plan that holds fitted tensors, one of them twice, and its file."""
    draw = torch.Generator().manual_seed(seed)
    one, other = (Weights(torch.randn(4, 3, generator=draw)) for _ in range(2))
    half = Weights(torch.randn(4, 3, generator=draw).to(torch.bfloat16))
    plan = omnicache.methods()["lazydit"].plan(schedule="#.#.", gates=(one, other, one, half)).with_measured(also=other)
    return plan, plan.save(tmp_path / f"{seed}.plan.json")


def test_tensors_lie_beside_the_plan_and_come_back(tmp_path: Path) -> None:
    plan, path = with_tensors(tmp_path)
    beside = tmp_path / "0.plan.safetensors"
    assert beside.exists()
    loaded = Plan.load(path)
    assert loaded == plan
    assert hash(loaded.policies) == hash(plan.policies)
    assert loaded.to_json() == plan.to_json()
    assert len(plan.tensors()) == 3
    assert Plan.from_json(plan.to_json(), tensors=plan.tensors()) == plan
    assert all(torch.equal(loaded.tensors()[name], t) for name, t in plan.tensors().items())
    assert plan != with_tensors(tmp_path, seed=1)[0]


def test_tensors_that_are_missing_or_foreign_are_refused(tmp_path: Path) -> None:
    plan, path = with_tensors(tmp_path)
    beside = tmp_path / "0.plan.safetensors"
    with pytest.raises(omnicache.OmniCacheError, match=r"missing.*x\.plan\.safetensors beside.*calibrate again"):
        Plan.from_json(plan.to_json())
    kept = beside.read_bytes()
    beside.unlink()
    with pytest.raises(omnicache.OmniCacheError, match="missing"):
        Plan.load(path)
    with_tensors(tmp_path, seed=1)
    beside.write_bytes((tmp_path / "1.plan.safetensors").read_bytes())
    with pytest.raises(omnicache.OmniCacheError, match="missing"):
        Plan.load(path)
    renamed = {name: t + 1 for name, t in plan.tensors().items()}
    save_file(renamed, str(beside))
    with pytest.raises(omnicache.OmniCacheError, match="others than it was saved with"):
        Plan.load(path)
    for spoiled in (kept[: len(kept) // 2], b"", b"no tensors"):
        beside.write_bytes(spoiled)
        with pytest.raises(omnicache.OmniCacheError, match="beside the plan, is not readable"):
            Plan.load(path)
    beside.write_bytes(kept)
    assert Plan.load(path) == plan


def test_a_plan_without_tensors_takes_away_those_of_an_earlier_one_and_nothing_else(tmp_path: Path) -> None:
    _, path = with_tensors(tmp_path)
    plain = omnicache.methods()["fora"].plan()
    plain.save(path)
    assert not (tmp_path / "0.plan.safetensors").exists()
    assert Plan.load(path) == plain
    model = tmp_path / "model.safetensors"
    save_file({"w": torch.zeros(2)}, str(model))
    plain.save(tmp_path / "model.json")
    assert model.exists()


def test_only_numbers_can_be_weights() -> None:
    with pytest.raises(omnicache.OmniCacheError, match="not of int64"):
        Weights(torch.arange(3))
    held = torch.zeros(3)
    made = Weights(held)
    held += 1
    assert made == Weights(torch.zeros(3)) != Weights(torch.zeros(1, 3))
    assert copy.deepcopy(made) is made
    assert pickle.loads(pickle.dumps(made)) == made


def test_a_deeply_nested_file_is_refused(tmp_path: Path) -> None:
    text = written(tmp_path).read_text()
    nested = '{"is": "Not", "a": ' * 900 + '{"is": "First", "count": 1}' + "}" * 900
    deep = text.replace('{"is": "First", "count": 3}', nested)
    assert deep != text
    with pytest.raises(omnicache.OmniCacheError, match=r"damaged|truncated"):
        Plan.load(written(tmp_path, text=deep))


def test_bytes_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.plan.json"
    with pytest.raises(omnicache.OmniCacheError, match="no plan file"):
        Plan.load(path)
    path.write_bytes(bytes(range(128, 256)))
    with pytest.raises(omnicache.OmniCacheError, match="not a readable plan"):
        Plan.load(path)


def test_a_plan_for_another_model_is_refused(tmp_path: Path) -> None:
    pipe, other = Pipe("dit"), Pipe("sd3")
    plain = sample(other)
    plan = omnicache.calibrate(pipe.pipeline(), [1], "omnicache-trajectory", progress=False, num_inference_steps=8)
    path = plan.save(tmp_path / "dit.plan.json")
    with pytest.raises(omnicache.OmniCacheError, match="made for DiTTransformer2DModel"):
        omnicache.enable(other, path)
    assert torch.equal(sample(other), plain)
    omnicache.enable(pipe, path)
    omnicache.disable(pipe)


def test_a_class_that_was_not_announced_cannot_be_saved(tmp_path: Path) -> None:
    class Mine(omnicache.policy.Trigger):
        pass

    class Plain(Mine):
        pass

    plan = Plan("mine", (omnicache.Policy(omnicache.policy.value(Mine)(), omnicache.granularity.Stack()),))
    plan.to_json()
    unannounced = Plan("mine", (omnicache.Policy(Plain(), omnicache.granularity.Stack()),))
    omnicache.policy.VALUES.pop("Mine")
    with pytest.raises(omnicache.OmniCacheError, match="cannot be saved"):
        unannounced.save(tmp_path / "a.plan.json")
