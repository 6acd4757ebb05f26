"""The multidimensional OmniCache inside models; what its selectors choose by themselves is in tests/selectors."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import diffusers
import pytest
import torch
from torch import nn

import omnicache
from omnicache.errors import OmniCacheError
from omnicache.granularity import MLP, Attention, Stack, Temporal
from omnicache.models.discover import discover
from omnicache.models.map import ModelMap, Site
from omnicache.plan import Plan
from omnicache.policy import Policy, Rows, Where, value
from omnicache.predictors import FromKept, Hold, Residual
from omnicache.selectors import Frames, FramesAndTokens, Positions, Tokens
from omnicache.triggers import Every, First


class FeedForward(nn.Module):
    """Position by position; ``plain`` hands on what it is given."""

    def __init__(self, width: int, plain: bool = False):
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.plain = plain

    def forward(self, hidden_states):
        return hidden_states if self.plain else torch.tanh(self.inner(hidden_states))


class SelfAttention(nn.Module):
    """Attention without positions; with a table of positions it returns that, which shows which rows it was given."""

    def __init__(self, width: int):
        super().__init__()
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))

    def forward(self, hidden_states, image_rotary_emb=None):
        if image_rotary_emb is not None:
            return torch.zeros_like(hidden_states) + image_rotary_emb[0]
        q, k = self.to_q(hidden_states), self.to_k(hidden_states)
        return torch.softmax(q @ k.mT / math.sqrt(q.shape[-1]), -1) @ self.to_v(hidden_states)


class CrossAttention(SelfAttention):
    """Returns the mean of its condition for every row."""

    def forward(self, hidden_states, encoder_hidden_states=None):
        return torch.zeros_like(hidden_states) + encoder_hidden_states.mean(1, keepdim=True)


class Block(nn.Module):
    def __init__(self, width: int, plain: bool):
        super().__init__()
        self.attn, self.attn2, self.ff = SelfAttention(width), CrossAttention(width), FeedForward(width, plain)

    def forward(self, hidden_states, context=None, table=None):
        hidden_states = hidden_states + self.attn(hidden_states, table)
        if context is not None:
            hidden_states = hidden_states + self.attn2(hidden_states, encoder_hidden_states=context)
        return hidden_states + self.ff(hidden_states)


class Film(nn.Module):
    """A denoiser of films ``(batch, channels, frames, height, width)`` whose blocks look at one frame each."""

    def __init__(self, layers: int = 2, width: int = 4, plain: bool = False):
        super().__init__()
        torch.manual_seed(0)
        self.transformer_blocks = nn.ModuleList(Block(width, plain) for _ in range(layers))

    def forward(self, hidden_states, timestep, context=None, table=None):
        batch, width, frames, height, breadth = hidden_states.shape
        x = hidden_states.permute(0, 2, 3, 4, 1).reshape(batch * frames, height * breadth, width)
        for block in self.transformer_blocks:
            x = block(x, context, table)
        return x.view(batch, frames, height, breadth, width).permute(0, 4, 1, 2, 3)


def steps(model: nn.Module, inputs: list[torch.Tensor], plan: Plan | None, **given: Any) -> list[torch.Tensor]:
    def draw() -> list[torch.Tensor]:
        return [model(x, timestep=torch.tensor([1000.0 - i]), **given).clone() for i, x in enumerate(inputs)]

    with torch.no_grad():
        if plan is None:
            return draw()
        with omnicache.cache(model, plan):
            return draw()


def plan(selector: Any, where: Any = None, how: Any = None) -> Plan:
    how = how or Hold()
    return Plan("md", (Policy(First(int(how == Hold())), where or Attention() | MLP(), how, which=selector),), min_steps=0)


def films(count: int, batch: int = 1, frames: int = 4, side: int = 4) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    return [torch.randn(batch, 4, frames, side, side, generator=draw) for _ in range(count)]


def sd3(layers: int = 3) -> nn.Module:
    torch.manual_seed(0)
    size = {"sample_size": 8, "patch_size": 1, "in_channels": 4, "out_channels": 4, "num_layers": layers, "pos_embed_max_size": 8}
    heads = {"attention_head_dim": 8, "num_attention_heads": 2, "caption_projection_dim": 16}
    return diffusers.SD3Transformer2DModel(**size, **heads, joint_attention_dim=12, pooled_projection_dim=12).eval()


def latte(layers: int = 2) -> nn.Module:
    torch.manual_seed(0)
    size = {"in_channels": 4, "out_channels": 4, "num_layers": layers, "sample_size": 8, "patch_size": 2, "video_length": 6}
    heads = {"num_attention_heads": 2, "attention_head_dim": 8, "cross_attention_dim": 16, "caption_channels": 12}
    norm = {"norm_type": "ada_norm_single", "norm_elementwise_affine": False}
    return diffusers.LatteTransformer3DModel(**size, **heads, **norm).eval()


def svd() -> nn.Module:
    torch.manual_seed(0)
    ways = {
        "down_block_types": ("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        "up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
    }
    size = {"sample_size": 8, "in_channels": 8, "out_channels": 4, "block_out_channels": (32, 64), "layers_per_block": 1}
    times = {"projection_class_embeddings_input_dim": 24, "addition_time_embed_dim": 8, "num_frames": 5}
    return diffusers.UNetSpatioTemporalConditionModel(
        **ways, **size, **times, num_attention_heads=(2, 4), cross_attention_dim=16
    ).eval()


def given(name: str, batch: int = 2) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(2)

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=draw)

    if name == "sd3":
        return {
            "hidden_states": normal(batch, 4, 8, 8),
            "encoder_hidden_states": normal(batch, 5, 12),
            "pooled_projections": normal(batch, 12),
        }
    if name == "latte":
        return {"hidden_states": normal(batch, 4, 6, 8, 8), "encoder_hidden_states": normal(batch, 5, 12)}
    return {
        "sample": normal(batch, 5, 8, 8, 8),
        "encoder_hidden_states": normal(batch, 1, 16),
        "added_time_ids": normal(batch, 3),
    }


MODELS = {"sd3": sd3, "latte": latte, "svd": svd}


def run(name: str, model: nn.Module, method: Any, count: int = 4, guided: bool = False, **options: Any) -> tuple[list[Any], Any]:
    one = given(name)
    if guided:
        one = {n: torch.cat([v[:1], v[1:] if n != next(iter(one)) else v[:1]]) for n, v in one.items()}
    with torch.no_grad(), omnicache.cache(model, method, **options) as found:
        outs = [model(**one, timestep=torch.full((2,) if name != "svd" else (), 900.0 - i)).sample for i in range(count)]
    return outs, found


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool((a - b).norm() <= 1e-5 * b.norm())


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("selector", [Tokens(0.0), Frames(0.0), Positions(0.0), FramesAndTokens(0.0, frames=0.0)])
def test_ratios_of_zero_are_the_model_itself(name, selector):
    """To the bit, and so is the first step at any ratio."""
    model = MODELS[name]()
    plain, _ = run(name, model, Plan("none"))
    assert all(torch.equal(a, b) for a, b in zip(run(name, model, plan(selector))[0], plain, strict=True))
    off, _ = run(name, model, "omnicache-md", token=0.0, frame=0.0, block=0.0)
    assert all(torch.equal(a, b) for a, b in zip(off, plain, strict=True))


@pytest.mark.parametrize("name", MODELS)
def test_the_first_step_is_whole_and_the_others_are_partly_computed(name):
    model = MODELS[name]()
    plain, _ = run(name, model, Plan("none"))
    outs, found = run(name, model, "omnicache-md", edge=0)
    assert found.computed == "#ooo"
    assert torch.equal(outs[0], plain[0])
    assert not torch.equal(outs[1], plain[1])
    assert sum(s.bytes() for s in found.sessions) == 0
    first, _ = run(name, model, "omnicache-md", edge=0, first="match")
    assert not torch.equal(first[0], plain[0])


def test_a_ratio_too_small_for_the_grid_says_that_nothing_was_left_out():
    """A twentieth of sixteen rows is less than one."""
    model, inputs = Film(), films(3)
    plain = steps(model, inputs, None)
    with torch.no_grad(), omnicache.cache(model, plan(Tokens(0.05, patches=2))) as run:
        made = [model(x, timestep=torch.tensor([1000.0 - i])).clone() for i, x in enumerate(inputs)]
    assert all(torch.equal(a, b) for a, b in zip(made, plain, strict=True))
    assert run.computed == "###"
    assert any("Tokens chose all rows of some modules, which were computed whole" in note for note in run.trace.notes)


def test_what_is_dropped_is_what_it_was_a_step_ago():
    """A module that hands on what it is given: fresh at rows that stay, and what it was before at those that are dropped."""
    model, inputs = Film(layers=1, plain=True), films(4)
    inside: list[torch.Tensor] = []
    hook = model.transformer_blocks[0].ff.register_forward_pre_hook(lambda m, a: inside.append(a[0].flatten(0, 1).clone()))
    steps(model, inputs, None)
    hook.remove()
    model.transformer_blocks[0].register_forward_hook(lambda m, a, out: outs.append(out.flatten(0, 1).clone()))
    outs: list[torch.Tensor] = []
    steps(model, inputs, plan(Tokens(0.5), MLP()))
    handed = [out - x for out, x in zip(outs, inside, strict=True)]
    assert torch.allclose(handed[0], inside[0], atol=1e-6)
    for before, now, x in zip(handed, handed[1:], inside[1:], strict=False):
        fresh, old = (now - x).abs().amax(1) < 1e-6, (now - before).abs().amax(1) < 1e-6
        assert torch.equal(fresh, ~old)
        assert torch.equal(fresh.view(4, 16).sum(1), torch.full((4,), 8))


def of_method(**options: Any) -> Plan:
    """The method, for feed-forward modules too; nothing is dropped at other ratios than those that are given."""
    return omnicache.methods()["omnicache-md"].plan(**{"token": 0.0, "mlp": True, **options})


NOWHERE = (torch.zeros(16, 4),)
"""A table of positions with which the attention of ``Film`` adds nothing."""


def as_rows(film: torch.Tensor) -> torch.Tensor:
    """``(batch, channels, frames, height, width)`` as ``(all rows, channels)``."""
    return film.permute(0, 2, 3, 4, 1).flatten(0, 3)


def test_a_first_step_that_matches_copies_and_the_next_ones_hold(monkeypatch):
    """To the bit: what is dropped is first what the row that it matched gives, and from then on what it was a step ago."""
    chosen: list[Any] = []
    whole = Tokens.choose

    def choose(self, state, site, step, rows):
        found = whole(self, state, site, step, rows)
        chosen.extend(found[:1] if site.kind == "mlp" else ())
        return found

    monkeypatch.setattr(Tokens, "choose", choose)
    inputs = films(3)
    outs = steps(Film(layers=1, plain=True), inputs, of_method(token=0.5, first="match"), table=NOWHERE)
    held = None
    for found, x, out in zip(chosen, map(as_rows, inputs), map(as_rows, outs), strict=True):
        kept = torch.zeros(64, dtype=torch.bool).index_fill(0, found.index.flatten(), True)
        match = found.stand_in[:, 0]
        assert kept.sum() == 32
        assert kept[match].all()
        assert torch.equal(match // 16, torch.arange(64) // 16)  # of its own frame
        held = torch.where(kept[:, None], x, x[match] if held is None else held)
        assert torch.equal(out, x + held)


def test_what_is_linear_in_time_is_found_again_between_the_frames_that_stay():
    """Before the first and after the last frame that stays it is what that one is."""
    model, times = Film(layers=1, plain=True), torch.arange(9.0)[:, None, None]
    start, change = torch.randn(2, 2, 2, 4, 1, 4, 4, generator=torch.Generator().manual_seed(5))  # of two steps, two films each
    inputs, computed = list(start + times * change), []
    model.transformer_blocks[0].ff.register_forward_pre_hook(lambda m, a: computed.append(a[0]))
    outs = steps(model, inputs, of_method(frame=0.6, fill="between"), table=NOWHERE)
    uneven = 0
    for step, given in enumerate(computed):
        for film, fresh in enumerate(given.view(2, 4, 16, 4)):  # four of nine frames
            x = inputs[step][film]
            frames = [i for i, frame in enumerate(as_rows(x[None]).view(9, 16, 4)) if any(torch.equal(frame, f) for f in fresh)]
            assert len(frames) == 4
            uneven += sum(b - a > 2 for a, b in pairwise(frames))
            wanted = start[step, film] + times.clamp(frames[0], frames[-1]) * change[step, film]
            assert close(outs[step][film] - x, wanted)
    assert uneven  # two in a row were dropped, which lie nearer to one side


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
def test_equal_tokens_of_a_square_stand_for_each_other(ratio):
    """Features constant inside each square, and nothing kept: what was dropped copies what it equals."""
    x = torch.randn(1, 4, 2, 4, 4, generator=torch.Generator().manual_seed(3))
    x = x.repeat_interleave(2, dim=3).repeat_interleave(2, dim=4)
    model = Film(layers=1)
    (plain,) = steps(model, [x], None)
    (found,) = steps(model, [x], plan(Tokens(ratio, stand_in="match"), MLP(), FromKept()))
    assert close(found, plain)
    (merged,) = steps(model, [x], plan(Tokens(ratio, stand_in="match", merge=True), MLP(), FromKept()))
    assert close(merged, plain)
    (found,) = steps(model, [x], plan(Tokens(ratio, stand_in="match"), Attention() | MLP(), FromKept()))
    assert close(found, plain) == (ratio == 0.75)  # else squares count more or less in the softmax


def test_rows_keep_their_places_in_a_table_of_positions():
    """All films drop the same rows then, in their order."""
    model, inputs = Film(layers=1), films(3, batch=2)
    table = (torch.arange(16.0)[:, None].expand(-1, 4).contiguous(), torch.zeros(16, 4))
    seen: list[torch.Tensor] = []
    model.transformer_blocks[0].attn.register_forward_pre_hook(lambda m, a: seen.append(a[1][0][:, 0].clone()))
    plain = steps(model, inputs, None, table=table)
    seen.clear()
    found = steps(model, inputs, plan(Tokens(0.5), Attention()), table=table)
    assert [len(s) for s in seen] == [16, 8, 8]
    assert all((s.diff() > 0).all() for s in seen)
    assert all(close(a, b) for a, b in zip(found, plain, strict=True))  # a row gets its own place, fresh or kept


def test_every_frame_keeps_its_own_condition():
    model, inputs = Film(layers=1), films(4, batch=2)
    context = torch.randn(8, 3, 4, generator=torch.Generator().manual_seed(4))  # another one for every frame
    for selector in (Frames(0.5), Frames(0.5, patches=2), FramesAndTokens(0.5, frames=0.5), Tokens(0.5)):
        found = steps(model, inputs, plan(selector, Attention() - MLP()), context=context)
        only = steps(model, inputs, plan(selector, _SelfOnly()), context=context)
        assert all(torch.isfinite(x).all() for x in found)
        assert all(close(a, b) for a, b in zip(found, only, strict=True))  # its value is the same at every step


@value
class _SelfOnly(Where):
    def select(self, model: ModelMap) -> tuple[Site, ...]:
        return model.sites("attention")


def test_each_module_is_given_as_many_rows_as_stay():
    model = latte()
    shapes: dict[str, list[tuple[int, ...]]] = {}
    for name, module in model.named_modules():
        if name.endswith(("attn1", "attn2")):
            module.register_forward_pre_hook(
                lambda m, a, k, n=name: shapes.setdefault(n, []).append(tuple((a[0] if a else k["hidden_states"]).shape[:2])),
                with_kwargs=True,
            )

    def seen(**options: Any) -> tuple[set[Any], set[Any]]:
        shapes.clear()
        run("latte", model, "omnicache-md", edge=0, **options)
        space = {s[1] for n, s in shapes.items() if "temporal" not in n and n.endswith("attn1")}
        return space, {s[1] for n, s in shapes.items() if "temporal" in n}

    assert seen(token=0.5, frame=0.0, block=0.0) == ({(12, 8)}, {(32, 6)})
    assert seen(token=0.0, frame=0.5, block=0.0) == ({(6, 16)}, {(32, 6)})  # all frames still meet along time
    assert seen(token=0.0, frame=0.0, block=0.5) == ({(12, 16)}, {(16, 6)})  # and all positions in space
    assert seen(token=0.5, frame=0.5, block=0.5) == ({(6, 8)}, {(16, 6)})
    assert seen(token=0.0, frame=0.5, block=0.5, placement="s2s-t2t") == ({(12, 8)}, {(32, 3)})
    with pytest.raises(OmniCacheError, match="token=0"):
        omnicache.methods()["omnicache-md"].plan(frame=0.3, block=0.3, placement="s2s-t2t")


def test_in_the_last_level_of_a_video_u_net_no_frames_are_dropped():
    model = svd()
    seen: dict[str, set[tuple[int, ...]]] = {}
    for name, module in model.named_modules():
        if name.endswith("attn1") and "temporal" not in name:
            module.register_forward_pre_hook(
                lambda m, a, k, n=name: seen.setdefault(n, set()).add(tuple((a[0] if a else k["hidden_states"]).shape[:2])),
                with_kwargs=True,
            )
    run("svd", model, "omnicache-md", token=0.0, frame=0.4, block=0.0)
    few = {name for name, shapes in seen.items() if any(entries < 10 for entries, _ in shapes)}
    assert few and not any(name.startswith("up_blocks.1") for name in few) and any("up_blocks.1" in name for name in seen)
    seen.clear()
    run("svd", model, "omnicache-md", token=0.25, frame=0.4, block=0.0)
    last = {shapes for name, each in seen.items() if name.startswith("up_blocks.1") for shapes in each}
    assert last == {(10, 64), (10, 48)}  # tokens are


class Told(Tokens):
    """Tells what it was asked."""

    asked: Any = None

    def choose(self, state, site, step, rows):
        found = super().choose(state, site, step, rows)
        TOLD.append((site, step, rows, found[0]))
        return found


TOLD: list[tuple[Site, Any, Rows, Any]] = []


@pytest.fixture
def told():
    TOLD.clear()
    yield TOLD
    TOLD.clear()


def test_a_block_is_looked_at_once_by_what_it_is_given(told):
    model = sd3()
    entered: list[torch.Tensor] = []
    model.transformer_blocks[1].register_forward_pre_hook(
        lambda m, a, k: entered.append(k["hidden_states"].clone()), with_kwargs=True
    )
    run("sd3", model, plan(Told(0.5)))
    assert len(told) == 3 * 3  # for its attention and its feed-forward module together, at every step but the first
    looked = [rows.block for site, _, rows, _ in told if site.name.startswith("transformer_blocks.1.")]
    assert all(torch.equal(a, b) for a, b in zip(looked, entered[1:], strict=True))


def test_two_calls_of_a_step_drop_the_same(told):
    model, one = sd3(), given("sd3")
    calls = [{n: v[i : i + 1] if n != "hidden_states" else v[:1] for n, v in one.items()} for i in (0, 1)]
    rows: list[torch.Tensor] = []
    model.transformer_blocks[0].attn.register_forward_pre_hook(
        lambda m, a, k: rows.append(k["hidden_states"].shape[1]), with_kwargs=True
    )
    with torch.no_grad(), omnicache.cache(model, plan(Told(0.5))) as found:
        for i in range(4):
            for call in calls:
                model(**call, timestep=torch.tensor([900.0 - i]))
        held = sum(s.bytes() for s in found.sessions)
    assert len(told) == 3 * 3  # the second call of a step takes what the first has chosen
    assert held > 0
    assert set(rows[2:]) == {32}


def test_halves_of_one_guided_call_drop_the_same(told):
    run("sd3", sd3(), plan(Told(0.5)), guided=True)
    assert told
    assert all(rows.grid.guided for _, _, rows, _ in told)
    assert all(torch.equal(c.index[0], c.index[1] - 64) for _, _, _, c in told)
    told.clear()
    run("sd3", sd3(), plan(Told(0.5)))  # two pictures, not two halves of one
    assert not any(rows.grid.guided for _, _, rows, _ in told)


INSIDE_SD3 = {f"transformer_blocks.{n}.{part}": 0.5 for n in range(4, 11) for part in ("attn", "ff")}
"""Of fifteen blocks; no text in them, which has feed-forward modules of its own."""
INSIDE_LATTE = {
    f"{row}.{n}.{part}": share
    for n in range(1, 5)
    for row, part, share in (
        ("transformer_blocks", "attn1", 5 * 13 / (6 * 16)),  # one of six frames, and of sixteen tokens three
        ("transformer_blocks", "attn2", 13 / 16),  # each frame has its text
        ("temporal_transformer_blocks", "attn1", 10 / 16),  # six of sixteen positions
    )
}
IN_SVD = {
    f"{place}.{row}.0.{part}": share
    for place in ("down_blocks.0.attentions.0", "mid_block.attentions.0", "up_blocks.1.attentions.0", "up_blocks.1.attentions.1")
    for row, part, share in (
        (
            "transformer_blocks",
            "attn1",
            0.5 if place.startswith("up") else 3 / 5 * 0.5,
        ),  # two of five frames, not in the last level
        ("transformer_blocks", "attn2", 0.5),
        ("temporal_transformer_blocks", "attn1", 10 / 16),
        ("temporal_transformer_blocks", "attn2", 10 / 16),
    )
}


@pytest.mark.parametrize(
    ("name", "model", "options", "shares"),
    [
        ("sd3", lambda: sd3(15), {"token": 0.5, "frame": 0.0, "block": 0.0, "mlp": True, "edge": 4}, INSIDE_SD3),
        ("latte", lambda: latte(6), {"token": 0.2, "frame": 0.3, "block": 0.4, "mlp": False, "edge": 1}, INSIDE_LATTE),
        ("svd", svd, {"token": 0.5, "frame": 0.5, "block": 0.4, "mlp": False, "edge": 0, "sharp": 1}, IN_SVD),
    ],
    ids=["sd3", "latte", "svd"],
)
def test_the_papers_settings_are_taken_by_the_class_of_the_model(name, model, options, shares):
    """Seen by the share of its rows that each module is given at the second step; those that are not listed get all."""
    model, sizes = model(), {}
    for site in (s for s in discover(model).all if s.kind in ("attention", "cross_attention", "mlp")):
        site.modules[0].register_forward_pre_hook(
            lambda m, a, k, at=site.name: sizes.setdefault(at, []).append((*a, *k.values())[0].numel()), with_kwargs=True
        )
    _, found = run(name, model, "omnicache-md", count=2)
    assert {key: found.plan.options[key] for key in options} == options
    assert {at: second / first for at, (first, second) in sizes.items() if second != first} == pytest.approx(shares)
    with omnicache.cache(model, "omnicache-md", token=0.4) as other:
        assert other.plan.options == {**found.plan.options, "token": 0.4}


def test_the_first_and_last_blocks_of_each_row_are_left_alone():
    model = latte(4)
    _, found = run("latte", model, "omnicache-md", edge=1)
    names = {s.name for s in found.sessions[0].attached._governed}
    assert {n.split(".")[1] for n in names} == {"1", "2"}
    assert any("temporal" in n for n in names)


def test_text_keeps_all_its_rows_and_nothing_is_said_of_it():
    _, found = run("sd3", sd3(), "omnicache-md", edge=0, mlp=True)
    assert found.trace.notes == []
    assert all(r.computed + r.partial == 6 for r in found.trace.records)


def test_an_image_model_has_no_layers_along_time():
    with pytest.raises(omnicache.OmniCacheError, match="finds nothing to cache"):
        run("sd3", sd3(), "omnicache-md", block=0.3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_half_precision(dtype):
    model = sd3().to(dtype)
    one = {n: v.to(dtype) for n, v in given("sd3").items()}
    with torch.no_grad(), omnicache.cache(model, "omnicache-md", edge=0) as found:
        outs = [model(**one, timestep=torch.full((2,), 900.0 - 100 * i, dtype=dtype)).sample for i in range(3)]
    assert found.computed == "#oo"
    assert all(out.dtype == dtype and torch.isfinite(out).all() for out in outs)


def test_gradients_flow_through_rows_that_are_computed():
    model, one = sd3(), given("sd3")
    x = one["hidden_states"].requires_grad_()
    with omnicache.cache(model, "omnicache-md", edge=0) as found:
        for i in range(3):
            out = model(**one, timestep=torch.full((2,), 900.0 - i)).sample
        (grad,) = torch.autograd.grad(out.sum(), x)
    assert found.computed == "#oo"
    assert grad.abs().sum() > 0


def test_inside_a_step_that_another_policy_reuses_nothing_is_chosen(told):
    """Whole steps by one policy, and rows inside those that run by another: the outer one goes first."""
    outer = Policy(First(2) | Every(2), Stack(), Residual(Hold()))
    inner = Policy(First(1), Attention(), Hold(), which=Told(0.5))
    _, found = run("sd3", sd3(), Plan("both", (outer, inner), min_steps=0), count=6)
    assert {step.index for _, step, _, _ in told} == {1, 2, 4} or {step.index for _, step, _, _ in told} == {1, 3, 5}
    assert "." in found.computed


def test_temporal_layers_are_told_by_their_names():
    assert {s.name.split(".")[0] for s in Temporal().select(discover(latte()))} == {"temporal_transformer_blocks"}
    assert all("temporal" in s.name for s in Temporal().select(discover(svd())))
    assert Temporal().select(discover(sd3())) == ()


def test_blocks_that_share_a_choice_find_it_once(monkeypatch):
    found = []
    whole = Tokens.find
    monkeypatch.setattr(Tokens, "find", lambda self, look: found.append(look.site.layer) or whole(self, look))
    steps(Film(layers=5), films(3), plan(Tokens(0.5, shared=2)))
    assert found == [0, 2, 4] * 2
    found.clear()
    steps(Film(layers=5), films(3), plan(Tokens(0.5)))
    assert found == [0, 1, 2, 3, 4] * 2


def test_blocks_that_share_a_choice_compute_the_same_rows(monkeypatch):
    rows: list[list[float]] = []
    whole = SelfAttention.forward

    def look(self, hidden_states, image_rotary_emb=None):
        rows.append(image_rotary_emb[0][:, 0].tolist())
        return whole(self, hidden_states, image_rotary_emb)

    monkeypatch.setattr(SelfAttention, "forward", look)
    table = (torch.arange(16.0)[:, None].expand(-1, 4).contiguous(), torch.zeros(16, 4))
    steps(Film(layers=4), films(2, frames=1), plan(Tokens(0.5, shared=2), Attention()), table=table)
    first, second = rows[:4], rows[4:]
    assert [len(r) for r in first] == [16] * 4
    assert [len(r) for r in second] == [8] * 4
    assert second[0] == second[1] != second[2] == second[3]
