"""Files that are there whole or not at all, and plans and tensors that are made once."""

from __future__ import annotations

import pytest
import torch

import omnicache
from omnicache import Plan
from omnicache.errors import OmniCacheError
from omnicache.kept.files import kept, whole
from omnicache.kept.plans import kept_plan
from omnicache.kept.shelf import Shelf


def interrupted(path):
    path.write_text("half of")
    raise KeyboardInterrupt


def test_a_file_is_whole_or_what_it_was(tmp_path):
    path = tmp_path / "a" / "x.txt"
    with pytest.raises(KeyboardInterrupt):
        whole(path, interrupted)
    assert not path.exists()
    assert whole(path, lambda partial: partial.write_text("all")) == path
    with pytest.raises(KeyboardInterrupt):
        whole(path, interrupted)
    assert path.read_text() == "all"


def test_tensors_are_made_once(tmp_path):
    made = []
    for _ in range(2):
        found = kept(tmp_path / "a" / "x.pt", lambda: made.append(1) or torch.arange(3))
        assert torch.equal(found, torch.arange(3))
    assert made == [1]


def test_a_plan_is_made_once_and_anew_where_its_file_is_broken(tmp_path):
    path, made = tmp_path / "a" / "x.plan.json", []

    def make() -> Plan:
        made.append(1)
        return omnicache.methods()["fora"].plan(interval=len(made) + 1)

    assert kept_plan(path, make) == kept_plan(path, make) == Plan.load(path)
    assert made == [1]
    path.write_text(path.read_text()[:50])
    assert kept_plan(path, make).options["interval"] == 3

    def broken() -> Plan:
        raise OmniCacheError("It does not apply.")

    with pytest.raises(OmniCacheError, match="does not apply"):
        kept_plan(tmp_path / "other.plan.json", broken)
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["x.plan.json"]


def test_a_plan_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "x.plan.json"
    omnicache.methods()["fora"].plan(interval=2).save(path)
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        omnicache.methods()["fora"].plan(interval=5).save(path)
    assert Plan.load(path).options["interval"] == 2


def test_a_shelf_belongs_to_one_model_and_one_question(tmp_path):
    torch.manual_seed(0)
    one, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    assert Shelf(tmp_path, one, ["x", torch.zeros(2)]).get("a", lambda: 1) == 1
    assert Shelf(tmp_path, one, ["x", torch.zeros(2)]).get("a", lambda: 2) == 1, "the same in another process"
    assert Shelf(tmp_path, other, ["x", torch.zeros(2)]).get("a", lambda: 2) == 2, "other weights"
    assert Shelf(tmp_path, one, ["x", torch.ones(2)]).get("a", lambda: 3) == 3, "another question"
    assert not Shelf(None, one, "x").known("a") and Shelf(None, one, "x").get("a", lambda: 4) == 4
