"""What one reused cell costs and saves: restarted runs are the runs that they restart, and an interrupted profile is the same."""

import diffusers
import pytest
import torch
from torch import nn

import omnicache
from omnicache.calibrate.layers import profile as module
from omnicache.calibrate.layers.batches import batches
from omnicache.calibrate.layers.profile import Profile, profile, sketch
from omnicache.calibrate.layers.replay import Replay
from omnicache.calibrate.layers.timing import Timing
from omnicache.errors import OmniCacheError
from omnicache.granularity import Block
from omnicache.policy import Policy
from omnicache.predictors import Hold, Residual
from omnicache.triggers import Table

from .. import tiny
from ..methods.tiny import Curves, Pipe, counted, dit, text_unet

STEPS = 8
CALL = {"num_inference_steps": STEPS}
SOLVERS = {
    "DDIM": lambda: None,
    "DPM++ 2M": lambda: diffusers.DPMSolverMultistepScheduler(),
    "UniPC": lambda: diffusers.UniPCMultistepScheduler(),
    "Euler, flow": lambda: diffusers.FlowMatchEulerDiscreteScheduler(),
    "ancestral": lambda: diffusers.EulerAncestralDiscreteScheduler(),
}


@pytest.fixture
def untimed(monkeypatch):
    """Layers that take a second each, which saves the runs that time them."""
    layers = lambda found: len(found.sites("block") or found.sites("layer"))  # noqa: E731
    monkeypatch.setattr(module, "timing", lambda _, f, __: Timing((1.0,) * layers(f), (0.9,) * layers(f), layers(f) + 0.2))


def profiled(pipe, inputs=(1, 2), **options) -> Profile:
    return profile(pipe, list(inputs), dict(CALL), False, **{"interval": 4, **options})


# --- restarted runs


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("guidance", ["batched", "calls"])
def test_a_restarted_run_is_the_run_to_the_bit(solver, guidance):
    pipe = Pipe(dit(layers=2), SOLVERS[solver]())
    call = {"label": 1, "guidance": guidance, **CALL}
    if solver == "ancestral":  # its noise comes from the global generator here
        torch.manual_seed(0)
    with Replay(pipe) as replay:
        tape = replay.record(call)
        for start in (0, 3, STEPS - 1):
            if solver == "ancestral":
                torch.manual_seed(0)
            with counted(pipe.model) as calls:
                again = replay.restart(tape, start)
            assert all(map(torch.equal, again, tape.latents[start:]))
            assert len(again) == STEPS - start
            assert calls["transformer_blocks.0"] == (STEPS - start) * (2 if guidance == "calls" else 1)
        assert len(replay.restart(tape, 2, 4)) == 3


def test_nothing_of_it_stays():
    pipe = Pipe(dit())
    plain = pipe()
    with Replay(pipe) as replay:
        replay.restart(replay.record(dict(CALL)), 2, 3)
    assert torch.equal(pipe(), plain)
    assert "_compiled_call_impl" not in pipe.model.__dict__
    assert not {"step", "set_timesteps"} & set(vars(pipe.scheduler))


class WithText(Pipe):
    """A pipeline with a text encoder, and another network that looks at the latents in the loop."""

    def __init__(self):
        super().__init__(dit())
        self.text, self.control = nn.Linear(1, 1), nn.Linear(8, 8)
        self.components = {"transformer": self.model, "text": self.text, "control": self.control, "scheduler": self.scheduler}

    def __call__(self, label=1, **options):
        self.text(torch.ones(1, 1))
        return super().__call__(label, **options)

    def evaluate(self, x, t, conditions):
        return super().evaluate(x + 0.1 * self.control(x), t, conditions)


def test_text_is_encoded_once_and_what_sees_the_latents_at_every_run():
    pipe = WithText()
    calls = {"text": 0, "control": 0}
    for name in calls:
        getattr(pipe, name).register_forward_hook(lambda *_, name=name: calls.update({name: calls[name] + 1}))
    with Replay(pipe) as replay:
        tape = replay.record(dict(CALL))
        assert all(map(torch.equal, replay.restart(tape, 2), tape.latents[2:]))
        assert calls == {"text": 1, "control": 2 * STEPS - 1}  # the first one is like the text: before the denoiser's first call


# --- the cells


def test_the_error_of_a_cell_is_that_of_a_run_that_reuses_it(untimed):
    pipe = Pipe(dit(layers=3))
    found = profiled(pipe)
    assert found.errors.shape == (3, STEPS, 2, 4 * 8 * 8)
    assert not found.errors[:, [0, 4]].any()
    for layer, t in ((0, 1), (2, 3), (1, 7)):
        row = "".join("." if i == t else "#" for i in range(STEPS))
        for i, label in enumerate((1, 2)):
            draw = {"generator": torch.Generator().manual_seed(i), **CALL}
            plain = pipe(label, **draw)
            draw["generator"] = torch.Generator().manual_seed(i)
            with omnicache.cache(pipe, Policy(Table(row), Block(layer), Residual(Hold()))):
                wrong = pipe(label, **draw) - plain
            torch.testing.assert_close(found.errors[layer, t, i], (wrong / plain.norm()).flatten(), rtol=1e-3, atol=1e-8)
    assert found.loss[1][7] == pytest.approx(float(found.errors[1, 7].norm(dim=-1).mean()))


def test_what_a_plan_is_foreseen_to_cost_is_what_it_costs_where_errors_add_up(untimed):
    """Blocks that add a curve of the time, and a linear read-out: errors add up exactly, and a value that is ``a`` steps old is off
    by the sum of the last ``a`` changes."""
    pipe = Pipe(Curves(lambda t: 2.0 - 0.003 * t + 2e-6 * t * t, layers=3))
    call = {"dtype": torch.float64, **CALL}
    found = profile(pipe, [1], call, False, interval=4)
    # Of older values, what a change does is taken from the step at which it was made, and the early ones grow more.
    for rows, near in ((("###.####", "#.######", "#.###.#."), 1e-3), (("#...#..#", "########", "#.#.#..."), 0.5)):
        plain = pipe(1, generator=torch.Generator().manual_seed(0), **call)
        with omnicache.cache(pipe, "omnicache-layered", schedule=rows):
            wrong = pipe(1, generator=torch.Generator().manual_seed(0), **call) - plain
        assert found.joint.size(rows) == pytest.approx(float(wrong.norm() / plain.norm()), rel=near)


def test_an_interrupted_profile_goes_on_to_the_same_one(tmp_path, monkeypatch):
    pipe, calls = Pipe(dit(layers=1)), []
    whole = profiled(pipe)
    honest = module._Cells.errors

    def errors(self, tape, t, reach):
        if len(calls) == 4:
            raise KeyboardInterrupt
        calls.append(t)
        return honest(self, tape, t, reach)

    monkeypatch.setattr(module._Cells, "errors", errors)
    with pytest.raises(KeyboardInterrupt):
        profiled(pipe, folder=tmp_path)
    assert torch.equal(pipe(), Pipe(dit(layers=1))())  # nothing of it stays
    timing = next(tmp_path.glob("*/timing.pt")).read_bytes()
    calls[:] = [0] * 5  # never four again
    again = profiled(pipe, folder=tmp_path)
    assert len(calls) - 5 == 2 * 6 - 4  # six steps of eight for each input, less what was kept
    assert torch.equal(again.errors, whole.errors)
    assert next(tmp_path.glob("*/timing.pt")).read_bytes() == timing
    kept = profiled(pipe, folder=tmp_path)
    assert kept.timing == again.timing
    assert torch.equal(kept.errors, again.errors)
    assert not list(tmp_path.glob("*/*.part"))


def test_other_weights_inputs_or_options_are_another_profile(tmp_path, untimed):
    for pipe, options in (
        (Pipe(dit(layers=1)), {}),
        (Pipe(dit(layers=1, seed=1)), {}),
        (Pipe(dit(layers=1)), {"inputs": (3,)}),
        (Pipe(dit(layers=1)), {"interval": 3}),
        (Pipe(dit(layers=1)), {"horizon": 2}),
    ):
        profiled(pipe, **{"inputs": (1,), "horizon": 1, **options}, folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 5


def test_a_shorter_horizon_grows_what_it_sees_to_the_end(untimed):
    pipe = Pipe(dit(layers=2))
    full, long, short = (profiled(pipe, inputs=(1,), horizon=h) for h in (None, STEPS, 2))
    assert torch.equal(full.errors, long.errors)
    assert (full.horizon, short.horizon) == (STEPS, 2)
    for layer in range(2):
        for t in (1, 2, 3, 5, 6, 7):
            assert short.loss[layer][t] == pytest.approx(full.loss[layer][t], rel=0.5)


def test_layers_of_a_u_net_are_measured_too():
    found = profile(Pipe(text_unet(levels=2)), [1], {"num_inference_steps": 4}, False, horizon=1)
    assert found.layers == 2 + 1 + 2 + 1 + 6  # two resnets down on each of two levels, a sampler, the middle, six up
    assert found.errors.any(-1).any(-1)[:, 1].sum() >= found.layers - 2  # those that save something


def test_a_layer_that_cannot_be_reused_is_no_candidate(monkeypatch):
    monkeypatch.setattr(module, "timing", lambda *_: Timing((1.0, 1.0), (0.9, 0.0), 2.2))
    found = profiled(Pipe(dit(layers=2)), inputs=(1,))
    assert found.errors[0, 1].any()
    assert not found.errors[1].any()
    assert found.rest == pytest.approx(1.3 * STEPS)
    monkeypatch.setattr(module, "timing", lambda *_: Timing((1.0, 1.0), (0.0, 0.0), 2.2))
    with pytest.raises(OmniCacheError, match="cannot be planned by layer"):
        profiled(Pipe(dit(layers=2)), inputs=(1,))


def test_the_time_of_a_layer_is_that_of_its_work():
    found = profiled(Pipe(dit(layers=3)), inputs=(1,), horizon=1).timing
    assert all(0 <= s < c < found.whole for c, s in zip(found.computed, found.saved, strict=True))
    assert sum(found.computed) < found.whole
    assert found.rest > 0


# --- small things


def test_inputs_are_drawn_together_where_that_can_be(untimed):
    pipe = tiny.Pipe("dit").pipeline()
    call = {"output_type": "pt", "num_inference_steps": 6}
    together = batches(pipe, [1, 2, 3], call, 2)
    assert [one["class_labels"] for one in together] == [[1, 2], [3]]
    assert len(together[0]["generator"]) == 2
    assert len(batches(pipe, [{"class_labels": [1], "guidance_scale": 2.0}, {"class_labels": [2]}], call, 4)) == 2
    assert len(batches(Pipe(dit()), [1, 2], call, 2)) == 2  # who knows what it takes
    alone, both = (profile(pipe, [1, 2], {**call, "num_inference_steps": 4}, False, interval=4, batch=n) for n in (1, 2))
    assert alone.errors.shape == both.errors.shape == (3, 4, 4, 4 * 8 * 8)  # the scheduler steps both halves of the guidance
    torch.testing.assert_close(alone.errors[:, :, [0, 2, 1, 3]], both.errors, rtol=1e-2, atol=1e-5)


def test_a_sketch_keeps_inner_products_on_average():
    a, b = torch.randn(2, 1, 3, 200, 200, generator=torch.Generator().manual_seed(0))
    b = 0.5 * a + b
    assert sketch(a).shape == (1, 4096)
    exact, short = float((a * b).sum()), float((sketch(a) * sketch(b)).sum())
    assert short == pytest.approx(exact, rel=0.1)
    assert torch.equal(sketch(a[:, :, :4, :4]), a[:, :, :4, :4].flatten(1))


def test_progress_is_shown_with_the_time_left(monkeypatch, capsys, untimed):
    monkeypatch.setenv("FORCE_COLOR", "1")
    profile(Pipe(dit(layers=1)), [1], dict(CALL), True, horizon=1)
    said = capsys.readouterr().err
    assert "layer by layer" in said
    assert "0:00:0" in said
    profile(Pipe(dit(layers=1)), [1], dict(CALL), False, horizon=1)
    assert not capsys.readouterr().err
