"""Chipmunk: the tests of its reference."""

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.models.attention_processor import AttnProcessor
from torch import nn

import omnicache
from omnicache.errors import OmniCacheError
from omnicache.granularity import MLP, Attention
from omnicache.policy import Columns, Policy
from omnicache.runtime.step import Step
from omnicache.selectors import Keys, Neurons
from omnicache.triggers import Every, First

from .tiny import Pipe, conditions_for, counted, dit, latte, sd3, text_unet

MODELS = {"dit": lambda: dit(layers=4), "sd3": lambda: sd3(layers=4), "latte": latte, "unet": lambda: text_unet(levels=2)}
SHAPES = {"latte": (4, 3, 8, 8)}
SMALL = {"group": 5}
"""Rows in a group: 16 and 5 tokens make several groups, the last of them smaller."""


class Feed(nn.Module):
    """A denoiser of one block: an MLP and nothing else."""

    def __init__(self, *between: nn.Module, width: int = 4, hidden: int = 12, parts: int = 1):
        super().__init__()
        self.blocks = nn.ModuleList(FeedBlock(*between, width=width, hidden=hidden, parts=parts) for _ in range(2))

    def forward(self, hidden_states, timestep):
        for block in self.blocks:
            hidden_states = block(hidden_states)
        return hidden_states


class FeedBlock(nn.Module):
    def __init__(self, *between: nn.Module, width: int, hidden: int, parts: int):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(width, parts * hidden), *between, nn.Linear(hidden, width))

    def forward(self, hidden_states):
        return self.mlp(hidden_states)


class Gate(nn.Module):
    def forward(self, x):
        a, b = x.chunk(2, dim=-1)
        return a * torch.nn.functional.silu(b)


def feed(*between: nn.Module, **sizes) -> Feed:
    torch.manual_seed(0)
    return Feed(*between, **sizes).double().requires_grad_(False)


def near(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-12) -> bool:
    return bool((a - b).abs().max() <= tolerance * b.abs().max())


def double(name: str) -> Pipe:
    model = MODELS[name]().double()
    given = lambda label: {k: v.double() if v.is_floating_point() else v for k, v in conditions_for(model, label).items()}  # noqa: E731
    return Pipe(model, conditions=given)


def draw(pipe: Pipe, name: str, **more) -> torch.Tensor:
    return pipe(shape=SHAPES.get(name, (4, 8, 8)), dtype=torch.float64, **more)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("guidance", ["batched", "calls"])
def test_all_columns_are_the_dense_result(name, guidance):
    pipe = double(name)
    plain = draw(pipe, name, guidance=guidance)
    with omnicache.cache(pipe, "chipmunk", mlp=1.0, attention=1.0) as run:
        assert near(draw(pipe, name, guidance=guidance), plain, 1e-9)
    assert set(run.computed[1:]) == {"o"}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("guidance", ["batched", "calls"])
def test_switched_off_it_is_the_plain_model_to_the_bit(name, guidance):
    pipe = Pipe(MODELS[name]())
    plain = pipe(guidance=guidance, shape=SHAPES.get(name, (4, 8, 8)))
    with omnicache.cache(pipe, "chipmunk", interval=1):
        assert torch.equal(pipe(guidance=guidance, shape=SHAPES.get(name, (4, 8, 8))), plain)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("which", [Neurons(0.2, 0.3, **SMALL), Keys(0.2, 0.3, **SMALL), Keys(0.1, 0.0, 0, **SMALL)])
def test_an_unchanged_input_gives_the_dense_steps_output_whatever_is_chosen(name, which):
    """Both rules telescope."""
    pipe = double(name)
    draw_x = torch.Generator().manual_seed(0)
    x = torch.randn(2, *SHAPES.get(name, (4, 8, 8)), generator=draw_x, dtype=torch.float64)
    told = pipe.conditions(torch.tensor([1, 2]))
    where = MLP() if isinstance(which, Neurons) else Attention()
    pipe.scheduler.set_timesteps(6)
    with torch.no_grad(), omnicache.cache(pipe, Policy(First(1), where, which=which)) as run:
        outs = []
        for t in pipe.scheduler.timesteps:
            outs.append(pipe.evaluate(x, torch.tensor(500), told).clone())
            pipe.scheduler.step(torch.zeros_like(x), t, x)
    assert run.computed == "#ooooo"
    assert all(near(out, outs[0]) for out in outs[1:])


@pytest.mark.parametrize(
    ("between", "parts"),
    [((nn.GELU(approximate="tanh"),), 1), ((nn.ReLU(), nn.Dropout(0.0)), 1), ((Gate(),), 2)],
    ids=["gelu", "relu", "gated"],
)
def test_the_output_is_always_that_of_the_kept_activations(between, parts):
    """``y == a W2 + b2`` after any number of sparse steps; and with every neuron chosen, ``a`` is that of the present input."""
    model = feed(*between, parts=parts)
    draw_x = torch.Generator().manual_seed(1)
    with omnicache.cache(model, Policy(First(1), MLP(), which=Neurons(0.3, 0.1, **SMALL))) as run:
        for step in range(7):
            x = torch.randn(2, 12, 4, generator=draw_x, dtype=torch.float64)
            out = model(x, torch.tensor(100.0 - step))
            cells = {c.site.name: c for r in run.sessions[0].runs for b in r.branches.values() for c in b.all_cells()}
            assert len(cells) == 2
            for name, cell in cells.items():
                y, a = cell.history[0].tensors
                assert near(y, model.get_submodule(name)[-1](a))
            assert torch.equal(out, cells["blocks.1.mlp"].history[0].tensors[0])
    assert run.computed == "#oooooo"
    assert not near(out, model(x, torch.tensor(0.0)), 1e-3)


def test_a_change_of_the_chosen_neurons_alone_is_exact():
    """Each channel feeds three neurons of its own; of four channels one changes, another in each group of rows."""
    model = feed(nn.GELU())
    model.blocks[0].mlp[0].weight.copy_(torch.eye(4).repeat(3, 1) * torch.arange(1.0, 13.0)[:, None])
    x = torch.randn(2, 12, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    changed = x.clone()
    for group, channel in enumerate((2, 0, 3)):
        changed[:, group * 5 : (group + 1) * 5, channel] += 1.0
    where = MLP() & omnicache.granularity.Within(0, 1)
    wanted = model(changed, torch.tensor(50.0))
    with omnicache.cache(model, Policy(First(1), where, which=Neurons(0.25, 0.0, **SMALL))) as run:
        model(x, torch.tensor(100.0))
        assert near(model(changed, torch.tensor(50.0)), wanted)
    assert run.computed == "#o"


def test_keys_that_receive_everything_are_enough():
    """Attention that is all on the chosen keys is renewed without error, however the queries and values change."""
    from omnicache.runtime.executors.keys import Attend

    draw_x = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, 11, 4, generator=draw_x, dtype=torch.float64) for _ in range(3))
    k[..., 0], q[..., 0] = -200.0, 1.0
    k[:, :, [1, 4, 8], 0] = 200.0
    call = Attend(q, k, v)
    chosen, _ = Keys(3 / 11, **SMALL).pick({}, site_of(dit(), "attention"), Step(0), Columns(0, 11, True, lambda: call.received(5)))
    assert chosen.shape == (2, 3, 3, 3)
    assert torch.equal(chosen, torch.tensor([1, 4, 8]).expand(2, 3, 3, 3))
    plain = torch.nn.functional.scaled_dot_product_attention
    assert near(call.to_some(plain, chosen, 5), plain(q, k, v))


def site_of(model, kind):
    from omnicache.models import discover

    return discover(model).sites(kind)[0]


@pytest.mark.parametrize("kind", ["bool", "float"])
def test_masks_go_with_their_keys(kind):
    from omnicache.runtime.executors.keys import Attend

    draw_x = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, 11, 4, generator=draw_x, dtype=torch.float64) for _ in range(3))
    seen = torch.rand(2, 1, 1, 11, generator=draw_x) > 0.4
    mask = seen if kind == "bool" else torch.zeros(seen.shape, dtype=torch.float64).masked_fill(~seen, -torch.inf)
    call = Attend(q, k, v, mask)
    plain = torch.nn.functional.scaled_dot_product_attention
    received = call.received(5)
    assert torch.equal(received.sum(-1).round(), torch.tensor([5.0, 5.0, 1.0]).expand(2, 3, 3))
    assert not received[(~seen).expand(2, 3, 3, 11)].any()
    every = torch.arange(11).expand(2, 3, 3, 11)
    assert near(call.to_some(plain, every, 5), plain(q, k, v, attn_mask=mask))
    hidden = (~seen[:, 0, 0]).int().argmax(-1)[:, None, None, None].expand(2, 3, 3, 1)
    assert not call.to_some(plain, hidden, 5).any()  # nothing that they may look at


def test_the_first_blocks_and_the_dense_steps_are_whole():
    pipe = Pipe(dit(layers=4))
    with omnicache.cache(pipe, "chipmunk") as run, counted(pipe.model) as calls:
        pipe(num_inference_steps=23)
    dense = len(range(0, 23, 10))
    assert [calls[f"transformer_blocks.{i}.ff"] for i in range(4)] == [23] * 4
    assert run.computed == "".join("#" if i % 10 == 0 else "o" for i in range(23))
    attended = [(r.computed, r.partial) for r in run.trace.records]
    assert attended == [(4, 0) if i % 10 == 0 else (2, 2) if i == 1 else (0, 4) for i in range(23)]
    assert dense == 3
    with omnicache.cache(pipe, "chipmunk", mlp=0.0, dense=(0, 3, 4)) as run:
        pipe(num_inference_steps=8)
    assert run.computed == "#oo##ooo"
    with omnicache.cache(pipe, "chipmunk", reuse=(4, 6)) as run:
        pipe(num_inference_steps=8)
    assert run.computed == "#ooo.o.o"


@pytest.mark.parametrize("option", ["dense", "reuse"])
def test_steps_out_of_range_are_refused_in_the_methods_words(option):
    with pytest.raises(OmniCacheError, match=f"chipmunk: option {option}"):
        omnicache.methods()["chipmunk"].plan(**{option: (-1,)})


def test_steps_that_reuse_all_blocks_take_their_output():
    pipe = Pipe(dit(layers=4))
    ends: list[torch.Tensor] = []
    pipe.model.transformer_blocks[-1].register_forward_hook(lambda *_: ends.append(_[2].clone()))
    heads: list[torch.Tensor] = []
    pipe.model.norm_out.register_forward_hook(lambda m, given, out: heads.append(given[0].clone()))
    with omnicache.cache(pipe, "chipmunk", reuse=(5,)):
        pipe(num_inference_steps=8)
    assert len(ends) == 7
    assert torch.equal(heads[5], heads[4])
    assert not torch.equal(heads[6], heads[5])


def test_neurons_are_chosen_anew_early_and_then_every_other_step():
    asked = []

    def look():
        asked.append(1)
        return torch.randn(1, 3, 8, 1, generator=torch.Generator().manual_seed(len(asked)))

    which, site, state = Neurons(0.25, 0.25), site_of(dit(), "mlp"), {}
    chosen = {}
    for i in range(30):
        before = len(asked)
        found, state = which.pick(state, site, Step(i), Columns(0, 8, i % 10 == 0, look))
        if found is not None:
            chosen[i] = found
            assert found.shape == (1, 3, 4)
            assert all(len(set(row.tolist())) == 4 for row in found[0])
            assert (len(asked) > before) == (i < 10 or i % 2 == 0)
            if i - 1 in chosen:
                assert torch.equal(found, chosen[i - 1]) == (i > 10 and i % 2 == 1)
    assert sorted(chosen) == [i for i in range(30) if i % 10]


def test_means_are_renewed_where_neurons_were():
    which, site = Neurons(0.25, 0.0), site_of(dit(), "mlp")
    seen = [torch.zeros(1, 1, 4, 1), torch.tensor([0.0, 3.0, 2.0, 1.0]).view(1, 1, 4, 1)]
    _, state = which.pick(which.init(), site, Step(0), Columns(0, 4, True, lambda: seen[0]))
    order = []
    for i in range(1, 5):
        chosen, state = which.pick(state, site, Step(i), Columns(0, 4, False, lambda: seen[1]))
        order.append(int(chosen))
    assert order[:3] == [1, 2, 3]  # what was chosen has no change left


def test_keys_stay_those_of_the_first_steps_unless_asked_for_anew():
    site = site_of(dit(), "attention")
    for anew in (False, True):
        which, state, found = Keys(0.25, anew=anew), {}, []
        for i, dense in enumerate((True, True, False, True)):
            score = torch.rand(1, 1, 2, 12, generator=torch.Generator().manual_seed(i))
            chosen, state = which.pick(state, site, Step(i), Columns(0, 12, dense, lambda score=score: score))
            found.append(chosen)
        assert not torch.equal(found[0], found[1])
        assert torch.equal(found[1], found[2])
        assert torch.equal(found[3], found[2]) != anew


def test_near_keys_and_those_of_the_text_are_always_there():
    site, score = site_of(dit(), "attention"), torch.zeros(1, 1, 3, 12)
    fixed = torch.zeros(12, dtype=torch.bool)
    fixed[-1] = True
    chosen, _ = Keys(1 / 12, local=0, group=5).pick({}, site, Step(0), Columns(0, 12, True, lambda: score, fixed))
    for group, near_by in enumerate((range(5), range(5, 10), range(10, 12))):
        assert {*near_by, 11} <= set(chosen[0, 0, group].tolist())


def test_the_text_is_found_wherever_a_model_puts_it(monkeypatch):
    from tests.compat.checks import Loop
    from tests.compat.denoisers.flux import DENOISERS

    seen = []
    pick = Keys.pick
    monkeypatch.setattr(
        Keys, "pick", lambda self, state, site, step, c: (seen.append(c.fixed), pick(self, state, site, step, c))[1]
    )
    policy = Policy(First(1), Attention(), which=Keys(0.3, **SMALL))
    with omnicache.cache(pipe := Pipe(sd3(layers=2), FlowMatchEulerDiscreteScheduler()), policy):
        pipe()
    found = [f for f in seen if f is not None]
    assert len(found) == 2
    assert all(f.nonzero().flatten().tolist() == [16, 17, 18, 19, 20] for f in found)  # SD3: after the picture
    seen.clear()
    loop = Loop("FluxTransformer2DModel", DENOISERS["FluxTransformer2DModel"])
    with omnicache.cache(loop, policy):
        loop(steps=6)
    found = [f for f in seen if f is not None]
    assert found
    assert all(bool(f[0]) and not bool(f[-1]) for f in found)  # FLUX: before it


@pytest.mark.parametrize(
    ("between", "why"),
    [
        ((nn.GELU(), nn.LayerNorm(12)), "look at each other"),
        ((nn.GELU(), nn.Softmax(-1)), "look at each other"),
        ((nn.Linear(12, 12),), "no two layers"),
    ],
)
def test_other_mlps_are_computed_whole_and_it_is_said(between, why):
    model = feed(*between)
    x = torch.randn(2, 12, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    plain = [model(x * i, torch.tensor(100.0 - i)) for i in range(6)]
    with omnicache.cache(model, Policy(First(1), MLP(), which=Neurons(0.3, **SMALL))) as run:
        outs = [model(x * i, torch.tensor(100.0 - i)) for i in range(6)]
    assert all(torch.equal(a, b) for a, b in zip(outs, plain, strict=True))
    assert run.computed == "######"
    assert any("blocks.*.mlp is always computed" in note and why in note for note in run.trace.notes)


def test_attention_that_is_not_to_be_seen_is_computed_whole_and_it_is_said():
    pipe = Pipe(dit())
    for block in pipe.model.transformer_blocks:
        block.attn1.set_processor(AttnProcessor())
    plain = pipe()
    with omnicache.cache(pipe, Policy(First(1), Attention(), which=Keys(0.3))) as run:
        assert torch.equal(pipe(), plain)
    assert set(run.computed) == {"#"}
    assert any("how it attends is not to be seen" in note for note in run.trace.notes)


def test_low_precision_is_added_up_in_float32():
    pipe = Pipe(dit(layers=4).bfloat16())
    with omnicache.cache(pipe, "chipmunk") as run:
        cells = []
        hook = pipe.model.proj_out_2.register_forward_hook(
            lambda *_: cells.extend(c for r in run.sessions[0].runs for b in r.branches.values() for c in b.all_cells())
        )
        out = pipe(dtype=torch.bfloat16)
        hook.remove()
    assert out.dtype is torch.bfloat16
    kinds = {c.site.kind: [t for t, _ in c.form] for c in cells if c.form}
    assert kinds == {"attention": [torch.float32], "mlp": [torch.float32, torch.bfloat16]}


class Scaled(nn.Sequential):
    def forward(self, x):
        return super().forward(x).mul_(2.0)


def test_an_mlp_that_writes_to_its_output_is_computed_whole():
    model = feed(nn.GELU())
    for block in model.blocks:
        block.mlp = Scaled(*block.mlp)
    x = torch.randn(2, 12, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with omnicache.cache(model, Policy(First(1), MLP(), which=Neurons(0.3, **SMALL))) as run:
        for i in range(5):
            model(x * i + 1, torch.tensor(100.0 - i))
    assert run.computed == "#####"


def test_autocast_gives_the_types_that_it_gives_without_a_cache():
    pipe, kinds = Pipe(dit(layers=4)), []
    for block in pipe.model.transformer_blocks:
        for part in (block.ff, block.attn1.to_out[0]):
            part.register_forward_pre_hook(lambda module, given: kinds.append(given[0].dtype))
            part.register_forward_hook(lambda module, given, out: kinds.append(out.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        plain = pipe()
        seen, kinds[:] = list(kinds), []
        with omnicache.cache(pipe, "chipmunk", mlp=1.0, attention=1.0) as run:
            out = pipe()
    assert kinds == seen
    assert "o" in run.computed
    assert near(out, plain, 0.1)


def test_chance_is_the_same_in_every_run_and_another_with_another_seed():
    pipe = Pipe(dit(layers=4))
    outs = []
    for seed in (0, 0, 1):
        with omnicache.cache(pipe, "chipmunk", random_neurons=0.3, random_keys=0.3, seed=seed):
            outs.append(pipe())
    assert torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[2])


def test_a_run_in_inference_mode_can_follow_and_be_followed():
    model = feed(nn.GELU())
    x = torch.randn(2, 12, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    policy = Policy(First(1) | Every(4, phase=0), MLP(), which=Neurons(0.3, **SMALL))
    outs = []
    for modes in ("iiiiii", "pppppp", "ipipip"):
        with omnicache.cache(model, policy):
            for i, mode in enumerate(modes):
                with torch.inference_mode(mode == "i"):
                    outs.append(model(x * (1 + i), torch.tensor(100.0 - i)).clone())
    assert all(near(outs[i], outs[6 + i]) and near(outs[i], outs[12 + i]) for i in range(6))
