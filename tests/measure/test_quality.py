"""Figures over many samples: what is compared with what, and how wide the intervals are."""

import math
import statistics
import sys

import pytest
import torch

from omnicache.granularity import Stack
from omnicache.measure import psnr
from omnicache.measure.quality import Quality, distances, kid95, mean95
from omnicache.measure.speed import median95, speed
from omnicache.measure.task import Input
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.predictors import Hold, Residual
from omnicache.runtime.hook import SLOT
from omnicache.triggers import Table

from ..methods.tiny import Pipe, dit

pytest.importorskip("torchmetrics")
WHERE, HOW = Stack(), Residual(Hold())
REUSE = Plan("half", (Policy(Table("#.#.#.#.#."), WHERE, HOW),))


class Drawn:
    """A task of pictures, or of clips of three frames, made from what a small denoiser gives."""

    name, steps, guidance = "drawn", 10, 2.0

    def __init__(self, count=12, frames=1, first=0, every=1):
        self.pipe, self.frames, self.first, self.every, self.calls = Pipe(dit()), frames, first, every, []
        self.inputs, self.settings = (
            [Input("any", first + i, {}) for i in range(0, count, every)],
            {"num_inference_steps": self.steps},
        )

    def with_other_seeds(self, further):
        return Drawn(len(self.inputs), self.frames, self.first + further)

    def thinned(self, every):
        return Drawn(len(self.inputs), self.frames, self.first, every)

    def draw(self, start, stop):
        self.calls.append((start, stop))
        made = [self.pipe(label=1, generator=torch.Generator().manual_seed(one.seed)) for one in self.inputs[start:stop]]
        pictures = torch.sigmoid(torch.cat(made)[:, :3].repeat(1, 1, 2, 2))
        return pictures if self.frames == 1 else torch.stack([pictures, pictures**2, pictures**3], 1)

    def recognised(self, made):
        return torch.arange(len(made)) % 2 == 0

    class judge:
        @staticmethod
        def features(pictures):
            return pictures.mean((2, 3)).float()


@pytest.mark.parametrize("frames", [1, 3])
def test_each_sample_is_compared_with_the_uncached_one_of_its_seed(frames):
    task = Drawn(frames=frames)
    quality = Quality(task, batch=5)
    found, made = quality.of(REUSE)
    assert task.calls[:3] == [(0, 5), (5, 10), (10, 12)]
    plain = task.draw(0, 12)
    assert torch.equal(quality.uncached, plain)
    one = made[7] if frames == 1 else made[7].flatten(0, -4)
    other = plain[7] if frames == 1 else plain[7].flatten(0, -4)
    wanted = psnr(one.reshape(-1, 3, 16, 16), other.reshape(-1, 3, 16, 16)).mean()
    assert found["psnr_each"][7] == pytest.approx(float(wanted), abs=1e-4)
    assert found["psnr"]["mean"] == pytest.approx(statistics.fmean(found["psnr_each"]), abs=1e-4)
    assert found["psnr"]["low"] < found["psnr"]["mean"] < found["psnr"]["high"] < 90
    assert found["recognised"]["mean"] == 0.5
    assert found["cache_bytes"] > 0


def test_what_is_computed_in_full_is_the_same_and_finite():
    found, _ = Quality(Drawn(4)).of(Plan("all", (Policy(Table("#" * 10), WHERE, HOW),)))
    assert found["psnr"] == {"mean": 100.0, "low": 100.0, "high": 100.0}
    assert found["ssim"]["mean"] == pytest.approx(1.0)


def test_uncached_samples_are_drawn_once_for_the_same_weights_and_inputs(tmp_path):
    task = Drawn(4)
    first = Quality(task, folder=tmp_path).of(None)[0]
    task.calls.clear()
    assert Quality(task, folder=tmp_path).of(None)[0] == first
    assert task.calls == []
    with torch.no_grad():
        next(task.pipe.transformer.parameters()).mul_(2)
    assert Quality(task, folder=tmp_path).of(None)[0] != first and task.calls
    other = Drawn(4, first=1)
    assert Quality(other, folder=tmp_path).of(None)[0] != first and other.calls


def test_the_reference_has_other_seeds():
    quality = Quality(Drawn(6))
    assert not torch.equal(quality.reference, quality.features(quality.uncached))


def test_every_third_sample_is_compared_with_the_uncached_ones_that_are_there():
    whole = Quality(Drawn(12), batch=5)
    each, few = whole.of(REUSE)[0]["psnr_each"], whole.thinned(3)
    found, made = few.of(REUSE)
    assert len(made) == found["samples"] == 4
    assert found["psnr_each"] == pytest.approx(each[::3], abs=1e-3)
    assert few.task.calls == [(0, 4)]  # with the plan, and not without
    assert torch.equal(few.reference, whole.reference[::3])


def test_of_clips_eight_frames_each_are_judged():
    quality = Quality(Drawn(5, frames=3))
    made = quality.uncached
    wanted = torch.stack([torch.stack([made[i, (i + k) % 3].mean((1, 2)) for k in (0, 0, 0, 1, 1, 1, 2, 2)]) for i in range(5)])
    torch.testing.assert_close(quality.features(made), wanted)


def told(reference: torch.Tensor, features: torch.Tensor, than: torch.Tensor | None = None) -> dict[str, float]:
    far = distances(reference, features)
    return kid95(far if than is None else far - distances(reference, than))


def test_the_interval_of_the_kernel_distance_holds_it_about_as_often_as_it_says():
    """Of sets of one distribution the true distance is 0."""
    draw = torch.Generator().manual_seed(0)
    inside = 0
    for _ in range(60):
        a, b = torch.rand(2, 48, 1, 4, generator=draw)
        found = told(a, b)
        inside += found["low"] <= 0 <= found["high"]
    assert 50 <= inside <= 60
    shifted = told(torch.rand(48, 1, 4, generator=draw), torch.rand(48, 1, 4, generator=draw) + 0.5)
    assert shifted["low"] > 0


def test_how_much_farther_cached_samples_are_is_told_pair_by_pair():
    """What moves both sets alike (here a reference that is elsewhere) cancels out, and small changes show."""
    draw = torch.Generator().manual_seed(0)
    reference, uncached = torch.rand(48, 1, 4, generator=draw) + 0.3, torch.rand(48, 1, 4, generator=draw)
    worse = uncached - 0.01
    alone, paired = told(reference, worse), told(reference, worse, uncached)
    assert paired["mean"] == pytest.approx(alone["mean"] - told(reference, uncached)["mean"])
    assert paired["low"] > 0 and paired["high"] - paired["low"] < 0.3 * (alone["high"] - alone["low"])
    assert told(reference, uncached, uncached) == {"mean": 0.0, "low": 0.0, "high": 0.0}
    assert "kid_above" not in Quality(Drawn(6)).of(None)[0]


def test_pictures_that_belong_together_make_no_interval_narrower():
    draw = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 48, 1, 4, generator=draw)
    one, four = (told(a.expand(-1, m, -1), b.expand(-1, m, -1)) for m in (1, 4))
    assert (four["high"] - four["low"]) > 0.8 * (one["high"] - one["low"])


def test_mean_and_median_with_their_intervals():
    assert mean95(torch.tensor([1.0, 3.0]))["mean"] == 2.0
    found = median95([5.0, 1.0, 2.0, 9.0, 3.0, 8.0, 4.0, 7.0, 6.0])
    assert found == {"median": 5.0, "low": 2.0, "high": 8.0}
    for n, rank in ((5, 0), (6, 0), (9, 1), (12, 2), (20, 5)):
        found = median95([float(i) for i in range(n)])
        assert (found["low"], found["high"]) == (rank, n - 1 - rank)
        missed = 2 * sum(math.comb(n, i) for i in range(rank + 1)) / 2**n
        assert missed <= 0.05 or n < 6


def test_speed_is_of_pairs_by_turns(monkeypatch):
    pipe, order = Pipe(dit()), []

    class Watch:
        """Takes three seconds for what is not cached, and one for what is."""

        def __init__(self, model):
            self.each = ()

        def __enter__(self):
            return self

        def __exit__(self, *problem):
            self.each = {"plain": (2.0, 1.0), "cached": (1.0,)}[order[-1]]

    def call():
        hooked = SLOT in vars(pipe.model)
        order.append("cached" if hooked else "plain")

    monkeypatch.setattr(sys.modules["omnicache.measure.speed"], "Stopwatch", Watch)
    found = speed(pipe, call, REUSE, pairs=3)
    assert order == ["cached", "cached", "plain", "plain", "cached", "cached", "plain"]
    assert found["speedup"] == {"median": 3.0, "low": 3.0, "high": 3.0}
    assert (found["uncached"], found["cached"], found["pairs"]) == (3.0, 1.0, 3)
