"""Pyramid Attention Broadcast: the tests of its reference."""

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

import omnicache
from omnicache.errors import OmniCacheError
from omnicache.runtime.decisions import TriggerState
from omnicache.runtime.step import Step
from omnicache.triggers import Every, Outside, Spells

from .tiny import Pipe, counted, ddim, dit, full_steps, latte, sd3

FILM = {"shape": (4, 3, 8, 8), "num_inference_steps": 50}


def strip(trigger, times) -> str:
    state = TriggerState(trigger)
    return "".join(state.decide(Step(i, len(times), time), {}).value for i, time in enumerate(times))


def test_thirty_two_of_fifty_steps_compute():
    times = [999 - 20 * n for n in range(50)]
    found = full_steps(strip(Outside(100, 850) | Every(2, phase=0), times))
    assert found == [*range(9), *range(10, 45, 2), *range(45, 50)]
    assert len(found) == 32


def test_times_from_one_to_zero_are_thousandths():
    times = [999 - 20 * n for n in range(50)]
    trigger = Outside(100, 850) | Every(3, phase=0)
    assert strip(trigger, [t / 1000 for t in times]) == strip(trigger, times)
    # A run that begins in the middle is no other, and neither is one whose last times are below 1.
    assert strip(trigger, [t / 1000 for t in times[20:]]) == strip(trigger, times[20:])
    assert strip(Outside(100, 850), [500.0, 50.0, 0.5]) == "###"
    assert strip(Outside(100, 850), [500.0, 500.0, 0.5]) == "#.#"


def test_what_is_not_known_computes():
    assert strip(Outside(), [500.0, None, 400.0]) == "##."
    assert strip(Spells((500.0,)), [500.0, None, 400.0]) == "###"
    with pytest.raises(OmniCacheError, match="the lower time comes first"):
        Outside(800, 100)


def test_spells_begin_at_the_step_next_to_a_time():
    assert strip(Spells((720.0, 640.0)), [float(t) for t in range(800, 560, -20)]) == "#####..##..#"
    assert strip(Spells((720.0, 640.0)), [t + 1.0 for t in range(800, 560, -20)]) == "#####..##..#"
    assert strip(Spells((720.0, 640.0)), [t - 8.0 for t in range(800, 560, -20)]) == "#####..##..#"
    assert strip(Spells((720.0, 640.0)), [t / 1000 for t in range(800, 560, -20)]) == "#####..##..#"
    assert strip(Spells((800.0,), 3), [800.0, 780.0, 760.0, 740.0, 720.0]) == "#...#"
    assert strip(Spells((900.0,), 3), [500.0, 480.0, 460.0]) == "###"  # it is over before the run begins


@pytest.mark.parametrize("guidance", ["none", "batched", "calls"])
@pytest.mark.parametrize("off", [{"window": (0.0, 0.0)}, {"spatial": 1, "temporal": 1, "cross": 1}])
def test_switched_off_it_is_the_plain_model_to_the_bit(guidance, off):
    pipe = Pipe(latte())
    plain = pipe(guidance=guidance, shape=(4, 3, 8, 8))
    with omnicache.cache(pipe, "pab", mlp_times=(), **off) as run:
        assert torch.equal(pipe(guidance=guidance, shape=(4, 3, 8, 8)), plain)
    assert set(run.computed) == {"#"}


@pytest.mark.parametrize("guidance", ["none", "calls"])
def test_each_kind_of_attention_has_its_own_range(guidance):
    pipe = Pipe(latte(), ddim())
    times = 2 if guidance == "calls" else 1
    with omnicache.cache(pipe, "pab", mlp_times=()) as run, counted(pipe.model) as calls:
        pipe(guidance=guidance, **FILM)
    inside = [i for i in range(50) if 100 < 980 - 20 * i < 800]
    wanted = {n: 50 - sum(i % n != 0 for i in inside) for n in (2, 3, 6)}
    for block in range(2):
        assert calls[f"transformer_blocks.{block}.attn1"] == times * wanted[2]
        assert calls[f"temporal_transformer_blocks.{block}.attn1"] == times * wanted[3]  # of Latte's preset
        assert calls[f"transformer_blocks.{block}.attn2"] == times * wanted[6]
        assert calls[f"transformer_blocks.{block}.ff"] == times * 50
    assert run.computed == "".join("#" if i not in inside or i % 6 == 0 else "." if i % 2 and i % 3 else "o" for i in range(50))


def test_feed_forward_modules_pause_after_listed_times():
    pipe = Pipe(latte(layers=3), ddim())
    with omnicache.cache(pipe, "pab", window=(0.0, 0.0), mlp_blocks=2) as run, counted(pipe.model) as calls:
        pipe(**FILM)
    paused = [i for t in (720, 640, 560, 480, 400) for i in ((980 - t) // 20 + 1, (980 - t) // 20 + 2)]
    assert [i for i, mark in enumerate(run.computed) if mark != "#"] == paused
    for row in ("transformer_blocks", "temporal_transformer_blocks"):
        assert [calls[f"{row}.{block}.ff"] for block in range(3)] == [40, 40, 50]


def test_open_sora_plan_pauses_seven_feed_forward_modules_after_fourteen_times():
    """Of 150 steps, with attention as usual between 850 and 100."""
    plan = omnicache.methods()["pab"].plan_for(["LatteT2V LatteT2V/56"])
    *attention, mlp = plan.policies
    assert [p.when for p in attention] == [Outside(100.0, 850.0) | Every(n, phase=0) for n in (2, 4, 6)]
    assert mlp.when == Spells((738, 714, 690, 666, 642, 618, 594, 570, 546, 522, 498, 474, 450, 426), 2)
    assert plan.options["mlp_blocks"] == 7


def test_a_second_run_has_the_same_schedule():
    pipe = Pipe(sd3(), FlowMatchEulerDiscreteScheduler())
    with omnicache.cache(pipe, "pab") as run:
        first, seen = pipe(num_inference_steps=17), run.computed
        assert torch.equal(pipe(num_inference_steps=17), first)
    assert run.computed == seen
    assert "." in seen


def test_what_a_model_lacks_is_said_and_refused_if_asked_for():
    pipe = Pipe(dit())
    with omnicache.cache(pipe, "pab") as run:
        pipe()
    lacks = [n for n in run.trace.notes if "DiTTransformer2DModel has no" in n]
    assert [n.split(" has no ")[1].split(";")[0] for n in lacks] == ["temporal attention", "cross-attention"]
    with pytest.raises(OmniCacheError, match="pab needs temporal attention, and DiTTransformer2DModel has none"):
        omnicache.enable(pipe, "pab", temporal=4)
    with omnicache.cache(pipe, "pab", window=(0.0, 0.0)) as run:
        pipe()
    assert any("the plan computed every step" in n for n in run.trace.notes)
