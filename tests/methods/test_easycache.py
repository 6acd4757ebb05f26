"""EasyCache (arXiv 2507.02860): the tests of its reference."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import omnicache

from .tiny import Doubling, Pipe, dit, full_steps, number, sd3


class Times(nn.Module):
    """``factor`` times its input, and it counts its calls."""

    def __init__(self, factor: float):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1)])
        self.factor, self.calls = factor, 0

    def forward(self, hidden_states, timestep):
        self.calls += 1
        return self.factor * hidden_states


class Falling:
    """Steps to nine tenths, whatever the model says."""

    def set_timesteps(self, count: int):
        self.timesteps = torch.arange(count).flip(0)

    def step(self, output, timestep, sample):
        return SimpleNamespace(prev_sample=0.9 * sample)


def run(values: list[float], factor: float = 1.7, **options) -> tuple[str, list[float]]:
    """What is computed, with a step more than there are values so that no last step is known."""
    model = Times(factor)
    with omnicache.cache(model, "easycache", tail=0, **options) as run:
        out = [float(model(torch.full((1, 1, 1), v, dtype=torch.float64), torch.tensor([900.0 - i]))) for i, v in enumerate(values)]
    assert model.calls == run.computed.count("#")
    return run.computed, out


def test_the_vector_of_the_reference():
    """Without a known last step, and with one, which is computed for that reason alone."""
    falling = [10 * 0.9**n for n in range(12)]
    assert full_steps(run(falling, threshold=0.3, warmup=2)[0]) == [0, 1, 5, 9]
    pipe = Pipe(Times(1.7), Falling())
    with omnicache.cache(pipe, "easycache", threshold=0.3, warmup=2) as on:
        pipe(num_inference_steps=12)
    assert full_steps(on.computed) == [0, 1, 5, 9, 11]


@pytest.mark.parametrize("factor", [0.25, 1.7, -3.0])
def test_the_response_is_the_factor_after_two_computed_steps(factor):
    """With k = |c| the expected change of an input that moves by d is d / |last input|, whatever c."""
    strips = {run([10 * 0.9**n for n in range(12)], f, threshold=0.3, warmup=2)[0] for f in (factor, 1.7)}
    assert len(strips) == 1


def test_threshold_zero_computes_all_and_infinity_what_is_forced():
    falling = [10 * 0.9**n for n in range(12)]
    assert run(falling, threshold=0.0, warmup=2)[0] == "#" * 12
    assert run(falling, threshold=math.inf, warmup=3)[0] == "###" + "." * 9
    assert run(falling, threshold=math.inf, warmup=1)[0] == "##" + "." * 10  # two are needed to know how it responds
    with omnicache.cache(pipe := Pipe(dit()), "easycache", threshold=math.inf, warmup=2) as on:
        pipe()
    assert on.computed == "##.......#"


def test_equal_inputs_of_two_computed_steps_say_nothing():
    strip, _ = run([1.0, 1.0, 1.1, 1.2, 1.3], threshold=math.inf, warmup=2)
    assert strip[2] == "#"  # 0 / 0


def test_the_toy_bench():
    model = Doubling()
    with omnicache.cache(model, "easycache", threshold=math.inf, warmup=2, tail=0):
        assert [float(model(number(v), 9.0 - v)) for v in (9, 10, 11)] == [36, 40, 41]


@pytest.mark.parametrize("guidance", ["batched", "calls"])
def test_both_guidance_branches_take_one_decision(guidance):
    pipe = Pipe(sd3())
    with omnicache.cache(pipe, "easycache", threshold=0.5, warmup=3) as on:
        pipe(guidance=guidance, num_inference_steps=20)
    strips = [on.trace.strip(b) for b in on.trace.branches()]
    assert len(set(strips)) == 1 and "." in strips[0] and strips[0].startswith("###")


def test_what_is_kept_is_as_large_as_the_latents_however_deep_the_model():
    kept = []
    for layers in (2, 6):
        with omnicache.cache(pipe := Pipe(sd3(layers=layers)), "easycache", threshold=0.5, warmup=3) as on:
            pipe()
        kept.append(on.cache_bytes)
    assert kept[0] == kept[1] <= 5 * 4 * 8 * 8 * 4
