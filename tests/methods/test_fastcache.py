"""FastCache: the tests that its reference asks for."""

import pytest
import torch
from torch import nn

import omnicache
from omnicache.calibrate.gates.loop import Loop
from omnicache.calibrate.maps import lines
from omnicache.granularity import Blocks
from omnicache.methods.fastcache import fastcache
from omnicache.models import discover
from omnicache.models.map import Site
from omnicache.plan import Plan
from omnicache.policy import Rows
from omnicache.predictors import Affine
from omnicache.runtime.step import Step
from omnicache.selectors import Motion
from omnicache.signals import ChiSquareChange, ProbeChange
from omnicache.triggers import Above
from omnicache.weights import Weights

from .tiny import Pipe, counted, dit, latte, sd3, strip

TOTAL, WIDTH = 10, 16
BLOCK = Site("blocks.0.attn", "attention", (), layer=0, layers=1)


class Line(nn.Module):
    """A block that is affine in each token."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return hidden_states + self.inner(hidden_states)


class Lines(nn.Module):
    def __init__(self, width: int = 4, layers: int = 3) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Line(width) for _ in range(layers))

    def forward(self, x: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        hidden = x.flatten(2).transpose(1, 2)
        for block in self.blocks:
            hidden = block(hidden)
        return 0.1 * hidden.transpose(1, 2).view_as(x)


def identity(layers: int = 3) -> tuple[tuple[Weights, ...], ...]:
    return ((),) * layers


def test_a_fitted_line_on_an_affine_block_is_that_block():
    torch.manual_seed(0)
    model = Lines().requires_grad_(False)
    loop = Loop(Pipe(model, conditions=lambda label: {}))
    maps, left = lines(loop, [{"label": [1, 2]}], Blocks().select(discover(model)), 1e-9, progress=False)
    x = torch.randn(2, 7, 4)
    for block, fit in zip(model.blocks, maps, strict=True):
        (out,) = Affine(fit).estimate((), Step(1), (x,))
        torch.testing.assert_close(out, block(x), rtol=1e-4, atol=1e-4)
    assert max(left) < 1e-4


def test_identity_maps_and_a_gate_that_lets_all_pass_make_the_stack_the_identity():
    pipe = Pipe(dit())
    with omnicache.cache(pipe, "fastcache", maps=identity(), threshold=1e9, motion=None) as run, counted(pipe.model) as calls:
        pipe()
    assert run.computed == "#" + "." * (TOTAL - 1)
    assert {calls[f"transformer_blocks.{i}"] for i in range(3)} == {1}
    x = torch.randn(2, 5, WIDTH)
    assert torch.equal(Affine().estimate((), Step(1), (x,))[0], x)


def test_a_change_of_nine_tenths_computes():
    signal = ProbeChange(1, "output", "visited", "l2")
    (gate,) = [p.when for p in fastcache(maps=identity(2), motion=None).policies][1:]
    assert gate == Above(signal, 0.05)
    assert strip(gate, 4, signals={signal: [None, 0.9, 0.04, 0.06]}) == "##.#"


def test_the_published_test_lets_it_pass():
    signal = ChiSquareChange(1)
    before = torch.randn(3, 64, 32)
    for share, passes in ((0.9, True), (0.99, True), (1.1, False)):
        change = signal.change(signal.sums(before * (1 + share), before))
        torch.testing.assert_close(change, torch.full((3,), share**2 / (1 + 1.96 * (2 / 2048) ** 0.5)))
        assert bool((change < 1).all()) == passes
    published = fastcache(maps=identity(2), motion=None, gate="chi-square").policies[1].when
    assert published == Above(signal, 1.0)


@pytest.mark.parametrize("model", [dit, sd3, latte])
@pytest.mark.parametrize("guidance", ["batched", "calls"])
def test_all_tokens_in_motion_and_no_block_passed_is_the_plain_model(model, guidance):
    pipe = Pipe(model())
    more = {"guidance": guidance} | ({"shape": (4, 3, 8, 8)} if model is latte else {})
    plain = pipe(**more)
    with omnicache.cache(pipe, "fastcache", threshold=0.0, motion=-1.0) as run:
        assert torch.equal(pipe(**more), plain)
    assert set(run.computed) == {"#"}, "of blocks in which all rows move none is put together"
    with omnicache.cache(pipe, "fastcache", threshold=0.0, motion=None) as run:
        assert torch.equal(pipe(**more), plain)
    assert set(run.computed) == {"#"}


def test_tokens_in_motion_are_those_that_changed_most():
    which, x = Motion(0.25), torch.zeros(2, 4, 3)
    chosen, state = which.choose(which.init(), BLOCK, Step(1), Rows(x))
    assert chosen.index.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]], "nothing to compare with"
    moved = x.clone()
    moved[0, 2], moved[0, 1], moved[1, 0], moved[1, 3] = 1.0, 0.4, 2.0, 1.5  # squares: 1, 0.16; 4, 2.25
    chosen, state = which.choose(state, BLOCK, Step(2), Rows(moved))
    assert chosen.index.tolist() == [[1, 2], [4, 7]], "as many in each sample, in their order"
    none, state = which.choose(state, BLOCK, Step(3), Rows(moved))
    assert none is None
    lost = moved.clone()
    lost[0, 3] = torch.nan
    chosen, _ = which.choose(state, BLOCK, Step(4), Rows(lost))
    assert 3 in chosen.index[0].tolist()


def test_each_block_decides_by_what_it_is_given():
    pipe = Pipe(dit())
    with omnicache.cache(pipe, "fastcache", maps=identity(), threshold=0.3, motion=None) as run, counted(pipe.model) as calls:
        pipe()
    assert all(1 <= calls[f"transformer_blocks.{i}"] <= TOTAL for i in range(3))
    told = [r for r in run.trace.records if r.signals]
    assert sum(r.computed for r in run.trace.records) == sum(calls[f"transformer_blocks.{i}"] for i in range(3))
    assert told


@pytest.mark.parametrize("model", [dit, sd3])
def test_a_calibrated_plan_skips_blocks_and_puts_in_lines_that_tell_something(model, tmp_path):
    pipe = Pipe(model())
    plan = omnicache.calibrate(pipe, [1, 2], "fastcache", progress=False, threshold=0.5, motion=None, num_inference_steps=TOTAL)
    assert Plan.load(plan.save(tmp_path / "a.plan.json")) == plan
    assert (tmp_path / "a.plan.safetensors").exists()
    plain = pipe(3)
    with omnicache.cache(pipe, plan) as run:
        fitted = pipe(3)
    assert set(run.computed) != {"#"}
    with omnicache.cache(pipe, "fastcache", maps=identity(), threshold=0.5, motion=None):
        passed = pipe(3)
    assert not torch.equal(fitted, passed)
    assert not torch.equal(fitted, plain)
    assert all(0 <= left < 0.99 for left in plan.measured["unexplained"])


def test_nothing_but_what_is_compared_is_kept():
    pipe = Pipe(dit())
    with omnicache.cache(pipe, "fastcache", maps=identity(), threshold=0.3, motion=None) as run:
        pipe()
    one = 16 * WIDTH * 4
    assert run.cache_bytes == 3 * one  # what each block was given last


def test_misfits_are_refused():
    with pytest.raises(omnicache.OmniCacheError, match="needs fitted lines"):
        fastcache()
    with pytest.raises(omnicache.OmniCacheError, match="DiTTransformer2DModel has 3"):
        omnicache.enable(Pipe(dit()), "fastcache", maps=identity(4))
    with pytest.raises(omnicache.OmniCacheError, match="2 modules, and DiTTransformer2DModel has 3"):
        omnicache.enable(Pipe(dit()), "fastcache", maps=identity(2))
    with pytest.raises(omnicache.OmniCacheError, match="square matrix"):
        Affine((Weights(torch.zeros(4, 4)),))
