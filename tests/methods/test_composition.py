"""Two plans at once: one says when a step, a layer, runs, the other how much of it (OmniCache's two papers together)."""

import pytest
import torch

import omnicache
from omnicache.errors import OmniCacheError
from omnicache.guards import Guards
from omnicache.plan import Plan

from .tiny import Pipe, counted, dit, latte, sd3

MODELS = {"dit": dit, "sd3": sd3, "latte": latte}
SCHEDULE, COMPUTED = "##.##..#.#", "#" * 10
ROWS = ("##.#..#.#.", "##.#..#.#.", "#.##.#.##.")


def trajectory(schedule: str = SCHEDULE, **more) -> Plan:
    gamma = tuple(0.5 if mark == "." else None for mark in schedule)
    return omnicache.methods()["omnicache-trajectory"].plan(schedule=schedule, gamma=gamma, **more)


def tokens(ratio: float = 0.5) -> Plan:
    return omnicache.methods()["omnicache-md"].plan(token=ratio, mlp=True)


def drawn(pipe: Pipe, plan: Plan) -> torch.Tensor:
    shape = (4, 3, 8, 8) if type(pipe.model).__name__.startswith("Latte") else (4, 8, 8)
    with omnicache.cache(pipe, plan):
        return pipe(shape=shape)


@pytest.mark.parametrize("model", MODELS)
def test_without_tokens_to_drop_it_is_the_trajectory_method(model):
    pipe = Pipe(MODELS[model]())
    assert torch.equal(drawn(pipe, trajectory() + tokens(0.0)), drawn(pipe, trajectory()))
    assert not torch.equal(drawn(pipe, trajectory() + tokens()), drawn(pipe, trajectory()))


@pytest.mark.parametrize("model", MODELS)
def test_without_steps_to_reuse_it_is_the_token_cache(model):
    pipe = Pipe(MODELS[model]())
    assert torch.equal(drawn(pipe, trajectory(COMPUTED) + tokens()), drawn(pipe, tokens()))
    assert not torch.equal(drawn(pipe, trajectory() + tokens()), drawn(pipe, tokens()))


def test_steps_that_compute_some_tokens_are_measured_and_not_corrected():
    """The corrector once took them for reused steps: it learned nothing, and corrected what had been computed."""
    pipe = Pipe(dit())
    assert not torch.equal(drawn(pipe, trajectory() + tokens()), drawn(pipe, trajectory(correct=False) + tokens()))
    before, after = SCHEDULE.index("."), slice(0, SCHEDULE.index("."))
    made: dict[bool, list[torch.Tensor]] = {True: [], False: []}
    for correct, outputs in made.items():
        pipe = Pipe(dit())
        plain = pipe.scheduler.step
        pipe.scheduler.step = lambda out, *args, plain=plain, outputs=outputs, **more: (
            outputs.append(out) or plain(out, *args, **more)
        )
        drawn(pipe, trajectory(correct=correct) + tokens())
    assert all(torch.equal(x, y) for x, y in zip(made[True][after], made[False][after], strict=True))
    assert not torch.equal(made[True][before], made[False][before])


def test_what_runs_is_what_both_leave():
    pipe, seen = Pipe(dit()), []
    pipe.model.transformer_blocks[1].ff.net[0].register_forward_pre_hook(lambda m, args: seen.append(args[0].shape[1]))
    drawn(pipe, trajectory() + tokens())
    assert seen == [16, *[8] * (SCHEDULE.count("#") - 1)]
    with counted(pipe.model) as calls:
        drawn(pipe, omnicache.methods()["omnicache-layered"].plan(schedule=ROWS) + tokens())
    assert [calls[f"transformer_blocks.{n}.attn1"] for n in range(3)] == [row.count("#") for row in ROWS]


@pytest.mark.parametrize("order", [lambda a, b: a + b, lambda a, b: b + a], ids=["steps first", "tokens first"])
def test_the_order_does_not_matter_where_parts_differ(order):
    pipe = Pipe(dit())
    assert torch.equal(drawn(pipe, order(trajectory(), tokens())), drawn(pipe, trajectory() + tokens()))


def test_the_noise_is_measured_with_the_tokens_dropped():
    pipe, inputs = Pipe(dit()), [{"label": n} for n in range(3)]
    asked = {"progress": False, "order": "alternate", "num_inference_steps": 10}
    alone = omnicache.calibrate(pipe, inputs, "omnicache-trajectory", **asked)
    both = omnicache.calibrate(pipe, inputs, "omnicache-trajectory", inside=tokens(), **asked)
    assert both.method == "omnicache-trajectory+omnicache-md"
    assert both.made_for == alone.made_for
    found = both.measured["omnicache-trajectory"]
    assert found["schedule"] == alone.measured["schedule"]
    assert found["gamma"] != alone.measured["gamma"]
    nothing = omnicache.calibrate(pipe, inputs, "omnicache-trajectory", inside=tokens(0.0), **asked)
    assert nothing.measured["omnicache-trajectory"]["gamma"] == alone.measured["gamma"]
    drawn(pipe, both)


def test_a_sum_is_saved_and_read(tmp_path):
    pipe, both = Pipe(dit()), trajectory() + tokens()
    back = Plan.load(both.save(tmp_path / "both.json"))
    assert back == both
    assert torch.equal(drawn(pipe, back), drawn(pipe, both))
    assert back.options["omnicache-md"]["token"] == 0.5


def test_parts_that_would_do_nothing_or_disagree_are_refused():
    pipe = Pipe(dit())
    with pytest.raises(OmniCacheError, match="governed by earlier policies"):
        omnicache.enable(pipe, trajectory(granularity="module") + tokens())
    fewer = omnicache.methods()["fewer-steps"].plan(ratio=0.5)
    with pytest.raises(OmniCacheError, match="both leave out steps"):
        _ = fewer + fewer
    small, large = (Plan("a", guards=Guards(memory)) for memory in ("1 MB", "2 MB"))
    with pytest.raises(OmniCacheError, match="memory limit"):
        _ = small + large
    assert (small + tokens()).guards == (tokens() + small).guards == Guards("1 MB")
    ten, twenty = (Plan("a", made_for={"model": "M", "num_inference_steps": n}) for n in (10, 20))
    with pytest.raises(OmniCacheError, match="num_inference_steps = 10, the second for 20"):
        _ = ten + twenty
    assert (fewer + tokens()).steps == 0.5
