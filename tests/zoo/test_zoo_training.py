"""The loop that trained the models in ``zoo/``."""

import itertools
import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("diffusers")
loop = pytest.importorskip("training.loop")


class Tiny(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.transformer_blocks = torch.nn.ModuleList([torch.nn.Linear(4, 4)])
        self.out = torch.nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.transformer_blocks[0](x))


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """A second for each look at it and thread, so that an update takes one second."""
    ticks = itertools.count()
    monkeypatch.setattr("training.common.Budget._now", lambda _: float(next(ticks) * torch.get_num_threads()))


def train(work: Path, stop: int | None = None) -> tuple[loop.Run, list[int]]:
    """Seven updates on pictures that depend on nothing but the update, or those up to ``stop``."""
    a = loop.arguments("pictures", batch=2).parse_args(["--work", str(work), "--minutes", str(7 / 60), "--device", "cpu"])
    run, due = loop.Run(a, "tiny", Tiny()), []
    run.kept.every = 0.0
    for done in run:
        step = run.budget.step
        assert done == pytest.approx(step / 7)
        x = torch.randn(a.batch, 4, generator=torch.Generator().manual_seed(step))
        if run.update((run.net(x) - 1).square().mean(), a.batch, even=step % 2 == 0):
            due.append(step)
        if step == stop:
            break
    return run, due


def test_a_run_that_was_interrupted_ends_where_an_undisturbed_one_does(tmp_path):
    whole, due = train(tmp_path / "whole")
    assert whole.budget.step == 7 and due == [7]
    _, early = train(tmp_path / "parts", stop=3)
    resumed, late = train(tmp_path / "parts")
    assert resumed.budget.step == 7 and early == [] and late == [7]
    one, other = (torch.load(tmp_path / name / "tiny.pt", weights_only=True) for name in ("whole", "parts"))
    assert list(one) == ["model", "opt", "ema", "budget"]
    torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_the_log_counts_across_restarts(tmp_path):
    train(tmp_path, stop=3)
    train(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "tiny.log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 8))
    assert [line["pictures"] for line in lines] == list(range(2, 16, 2))
    assert list(lines[0]) == ["step", "minutes", "even", "pictures", "loss"]


def test_a_restart_repeats_no_random_numbers(tmp_path):
    train(tmp_path, stop=3)
    torch.manual_seed(loop.SEED)
    before = torch.rand(3)
    train(tmp_path, stop=4)
    after = torch.rand(3)
    torch.manual_seed(loop.SEED + 3)
    assert torch.equal(after, torch.rand(3)) and not torch.equal(after, before)


def test_it_begins_with_the_weights_of_an_exported_model(tmp_path):
    name = "emoji-text"
    zoo = pytest.importorskip("omnicache.zoo")
    if name not in zoo.names():
        pytest.skip(f"the weights of {name} are not in this checkout")
    from training.text.transformer import Net

    asked = ["--work", str(tmp_path), "--start", str(zoo.path(name)), "--device", "cpu"]
    a = loop.arguments("pictures", batch=2, width=96, coarse=0.3).parse_args(asked)
    run, pipe = loop.Run(a, "text", Net(a.width)), zoo.load(name)
    for part, path in Net.parts.items():
        for key, weight in getattr(pipe, part).state_dict().items():
            assert torch.equal(run.net.state_dict()[f"{path}.{key}"], weight)
            assert torch.equal(run.ema.shadow[f"{path}.{key}"], weight)


def test_its_log_goes_on_with_that_of_the_exported_model(tmp_path, monkeypatch):
    log = tmp_path / "start" / "log" / "tiny.jsonl"
    log.parent.mkdir(parents=True)
    log.write_text(json.dumps({"step": 100, "minutes": 5.0, "pictures": 300, "loss": 0.5}) + "\n")
    monkeypatch.setattr(loop.DiffusionPipeline, "from_pretrained", lambda path: None)
    monkeypatch.setattr(Tiny, "parts", {}, raising=False)
    ask = loop.arguments("pictures", batch=2)
    for wanted in (3, 5):  # begun, and gone on with
        asked = ["--work", str(tmp_path), "--minutes", str(wanted / 60), "--device", "cpu", "--start", str(tmp_path / "start")]
        run = loop.Run(ask.parse_args(asked), "tiny", Tiny())
        run.kept.every = 0.0
        for _ in run:
            run.update(run.net(torch.ones(2, 4)).square().mean(), 2)
    lines = [json.loads(line) for line in (tmp_path / "tiny.log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [100, 101, 102, 103, 104, 105]
    assert [line["pictures"] for line in lines] == [300, 302, 304, 306, 308, 310]
    assert lines[-1]["minutes"] == pytest.approx(5.0 + 5 / 60)
