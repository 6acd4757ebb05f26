"""Streams through blocks: two of them, split ones, and code between blocks, which is counted once."""

from collections import OrderedDict, namedtuple

import pytest
import torch
from tests.tiny import Always
from torch import nn

import omnicache
from omnicache.granularity import MLP, Attention, Blocks, Denoiser, Stack
from omnicache.policy import Corrector, Policy
from omnicache.predictors import Hold, Residual, Taylor
from omnicache.runtime.streams import Layout, Shape, Signature, layout_by_identity, layout_by_shape, rebuild, tensors_of
from omnicache.triggers import Every, First, Table

from ..methods.tiny import Pipe, Truth, conditions_for, counted, dit, latte, sd3

REUSE = "#...."


def segments(run) -> list[list[tuple[int, int]]]:
    """First and last block of what was learned as one function, in the run in progress."""
    (current,) = run.sessions[0].runs
    return [
        sorted({(s.first, s.last) for s in chain.owner.values()})
        for branch in current.branches.values()
        for chain in branch.chains.values()
    ]


# --- real two-stream and split stacks


@pytest.mark.parametrize(("build", "shape"), [(dit, (4, 8, 8)), (sd3, (4, 8, 8)), (latte, (4, 3, 8, 8))])
@pytest.mark.parametrize("where", [Stack(), Blocks(), Attention() | MLP(), Denoiser()])
@pytest.mark.parametrize("guidance", ["batched", "calls"])
def test_true_values_in_place_of_estimates_give_the_uncached_output_to_the_bit(build, shape, where, guidance):
    pipe, truth, call = Pipe(build()), Truth(), {"num_inference_steps": 6, "stop": 5, "shape": shape, "guidance": guidance}
    plain = pipe(**call)
    with omnicache.cache(pipe, Policy(Always(), where, truth)):
        assert torch.equal(pipe(**call), plain)
    with omnicache.cache(pipe, Policy(Table(REUSE + "."), where, truth.played())) as run:
        assert torch.equal(pipe(**call), plain)
    assert run.computed == REUSE
    with omnicache.cache(pipe, Policy(Table(REUSE + "."), where, truth.played(change=0.1))):
        assert not torch.equal(pipe(**call), plain)


def test_two_streams_are_one_segment_and_the_text_ends_inside():
    pipe = Pipe(sd3(layers=4))
    with omnicache.cache(pipe, Policy(Table(REUSE), Stack(), Residual(Hold()))) as run, counted(pipe.model) as calls:
        pipe(num_inference_steps=5, stop=3)
        assert segments(run) == [[(0, 3)]]
        assert run.cache_bytes == 16 * 16 * 4  # the picture's stream alone: the last block returns no text
    assert calls["transformer_blocks.0"] == calls["transformer_blocks.3"] == 1
    assert calls["norm_out"] == 3


def test_two_streams_block_by_block_keep_both():
    pipe = Pipe(sd3(layers=3))
    with omnicache.cache(pipe, Policy(Table(REUSE), Blocks(), Residual(Hold()))) as run:
        pipe(num_inference_steps=5, stop=3)
        assert run.cache_bytes == (3 * 16 + 2 * 5) * 16 * 4  # 16 picture tokens thrice, 5 text tokens twice


def test_a_stack_with_reshapes_between_its_blocks_is_split_there():
    pipe = Pipe(latte(layers=2))
    call = {"num_inference_steps": 5, "stop": 3, "shape": (4, 3, 8, 8)}
    with omnicache.cache(pipe, Policy(Table(REUSE), Stack(), Residual(Hold()))) as run, counted(pipe.model) as calls:
        pipe(**call)
        assert segments(run) == [[(0, 0), (1, 1), (2, 2), (3, 3)]]
        assert run.cache_bytes == 4 * 3 * 16 * 16 * 4
    for blocks in ("transformer_blocks", "temporal_transformer_blocks"):
        assert calls[f"{blocks}.0"] == calls[f"{blocks}.1"] == 1
    assert run.trace.notes == []


@pytest.mark.parametrize("build", [sd3, latte])
def test_the_stack_residual_is_what_the_blocks_added_at_the_computed_step(build):
    """Computed at one latent and reused at another: the head gets its fresh stream plus the increments of all blocks."""
    model = build(layers=2)
    shape = (4, 3, 8, 8) if build is latte else (4, 8, 8)
    pipe, ends, added = Pipe(model), [], []
    blocks = [b for name in ("transformer_blocks", "temporal_transformer_blocks") for b in getattr(model, name, ())]

    def increment(module, args, kwargs, out):
        x = args[0] if args else kwargs["hidden_states"]
        y = out[1] if isinstance(out, tuple) else out
        added.append((y - x).mean())  # means survive the reshapes between spatial and temporal blocks

    entries = []
    model.pos_embed.register_forward_hook(lambda m, args, out: entries.append(out.mean()))
    model.norm_out.register_forward_pre_hook(lambda m, args: ends.append(args[0].mean()))
    hooks = [b.register_forward_hook(increment, with_kwargs=True) for b in blocks]
    with omnicache.cache(pipe, Policy(Table(REUSE), Stack(), Residual(Hold()))):
        pipe(num_inference_steps=5, stop=2, shape=shape)
    for hook in hooks:
        hook.remove()
    between = model.temp_pos_embed.mean() if build is latte else 0.0  # added after the first spatial block, live
    assert len(added) == len(blocks)
    for entry, end in zip(entries, ends, strict=True):
        torch.testing.assert_close(end, entry + sum(added) + between, rtol=1e-4, atol=1e-5)


def test_control_residuals_between_two_stream_blocks_are_live():
    """SD3's ControlNet adds to the picture's stream after every block but the last."""
    model = sd3(layers=3)
    x, more = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)), conditions_for(model, torch.tensor([1]))
    heads = []
    model.norm_out.register_forward_pre_hook(lambda m, args: heads.append(args[0]))

    def step(t, control):
        with torch.no_grad():
            model(
                x, timestep=torch.tensor([t]), block_controlnet_hidden_states=[torch.full((1, 16, 16), c) for c in control], **more
            )
        return heads[-1]

    with omnicache.cache(model, Policy(First(1), Stack(), Residual(Hold()))) as run:
        before = step(9.0, (1.0, 10.0, 100.0))
        same = step(8.0, (1.0, 10.0, 100.0))
        other = step(7.0, (2.0, 20.0, 100.0))
        assert run.computed == "#.."
        assert segments(run) == [[(0, 0), (1, 1), (2, 2)]]
    torch.testing.assert_close(same, before, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(other, before + 1.0 + 10.0, rtol=1e-5, atol=1e-4)


# --- a stack of one's own with code between its blocks


class Add(nn.Module):
    """Adds a constant; ``in_place`` writes it into the very tensor that it was given."""

    def __init__(self, amount: float, in_place: bool = False):
        super().__init__()
        self.amount, self.in_place = nn.Parameter(torch.tensor(amount), requires_grad=False), in_place

    def forward(self, hidden_states):
        return hidden_states.add_(self.amount) if self.in_place else hidden_states + self.amount


class Controlled(nn.Module):
    """Blocks that add 1, 2, 4, ...; between them a residual is added, as a ControlNet's is."""

    def __init__(self, between: str, blocks: int = 4, in_place: bool = False):
        super().__init__()
        self.blocks = nn.ModuleList(Add(2.0**i, in_place) for i in range(blocks))
        self.between = between

    def forward(self, x, timestep, control=None):
        h = x * 1
        for i, block in enumerate(self.blocks):
            h = block(h)
            if control is not None and i in control and self.between == "new tensor":
                h = h + control[i]
            elif control is not None and i in control:
                h += control[i]
        return h


def steps(model, policy, controls, x=0.0):
    """Outputs at falling times, each with its own control residuals and latent."""
    outs = []
    with omnicache.cache(model, policy) as run:
        for n, control in enumerate(controls):
            outs.append(float(model(torch.full((1, 2, 2), x + n), float(90 - n), control=control).mean()))
        return outs, run.computed, segments(run), list(run.trace.notes)


STACK = Policy(First(1), Stack(), Residual(Hold()))


def test_blocks_in_a_row_are_one_segment():
    outs, strip, parts, _ = steps(Controlled("new tensor"), STACK, [None] * 3)
    assert outs == [15, 16, 17]
    assert strip == "#.."
    assert parts == [[(0, 3)]]


@pytest.mark.parametrize(("places", "parts"), [((0,), [(0, 0), (1, 3)]), ((1, 2), [(0, 1), (2, 2), (3, 3)]), ((3,), [(0, 3)])])
def test_an_addition_between_blocks_counts_once_and_is_the_present_one(places, parts):
    controls = [dict.fromkeys(places, 100.0 * (n + 1)) for n in range(4)]
    outs, strip, found, notes = steps(Controlled("new tensor"), STACK, controls)
    assert outs == [15 + n + 100.0 * (n + 1) * len(places) for n in range(4)]
    assert strip == "#..."
    assert found == [parts]
    assert notes == []


@pytest.mark.parametrize("places", [(0,), (1, 2), (0, 1, 2, 3)])
@pytest.mark.parametrize("in_place", [False, True])
def test_an_addition_written_into_the_stream_counts_once_too(places, in_place):
    """It cannot be seen by whose tensor it is, only by the tensor's version."""
    controls = [dict.fromkeys(places, 100.0 * (n + 1)) for n in range(6)]
    outs, strip, _, _ = steps(Controlled("same tensor", in_place=in_place), Policy(First(2), Stack(), Residual(Hold())), controls)
    assert outs == [15 + n + 100.0 * (n + 1) * len(places) for n in range(6)]
    assert strip.startswith("##")
    assert strip.endswith("...")


def test_blocks_that_write_into_their_input_are_learned_from_a_copy_of_it():
    outs, strip, _, _ = steps(Controlled("new tensor", in_place=True), Policy(First(2), Stack(), Residual(Hold())), [None] * 5)
    assert outs == [15, 16, 17, 18, 19]
    assert strip == "##..."


def test_control_that_comes_and_goes_in_the_middle_of_a_run():
    controls = [None, None, {1: 100.0}, {1: 100.0}, {1: 200.0}, None, None]
    policy = Policy(Table("#..#..#") | Every(99), Stack(), Residual(Hold()))
    outs, strip, parts, _ = steps(Controlled("new tensor"), policy, controls)
    assert outs == [15, 16, 117, 118, 219, 20, 21]
    assert strip == "#..#..#"
    assert parts == [[(0, 3)]]


def test_control_that_comes_at_the_first_reuse_makes_it_a_computed_step():
    policy = Policy(Table("#..#.") | Every(99), Stack(), Residual(Hold()))
    outs, strip, _, _ = steps(Controlled("new tensor"), policy, [None, {1: 100.0}, {1: 100.0}, None, None])
    assert outs == [15, 116, 117, 18, 19]
    assert strip == "##.#."


class Widens(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, 4), requires_grad=False)

    def forward(self, hidden_states):
        return hidden_states @ self.weight


@pytest.mark.parametrize("place", [0, 2])
def test_a_block_that_changes_the_shape_is_computed_and_the_others_are_not(place):
    model = Controlled("new tensor", blocks=4)
    model.blocks[place] = Widens()
    with omnicache.cache(model, STACK) as run, counted(model) as calls:
        for n in range(3):
            x = torch.full((1, 2, 2), float(n))
            assert torch.equal(model(x, 9.0 - n), Controlled.forward(model, x, 9.0 - n))
        assert run.computed == "#oo"
        assert any(f"block {place} of blocks is always computed" in n for n in run.trace.notes)
    assert calls[f"blocks.{place}"] == 3 + 3
    assert calls["blocks.3"] == 1 + 3


def test_two_streams_of_one_shape_that_cannot_be_told_apart_are_computed_and_said():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.tensor(2.0), requires_grad=False)

        def forward(self, a, b):
            return b + self.w, a * self.w

    class Swapping(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList([Both(), Both()])

        def forward(self, x, timestep):
            a, b = self.blocks[0](x, x + 1)
            a, b = self.blocks[1](a * 1, b * 1)
            return a + b

    model = Swapping()
    with omnicache.cache(model, STACK) as run:
        for n in range(3):
            x = torch.randn(1, 2, 2)
            assert torch.equal(model(x, 9.0 - n), Swapping.forward(model, x, 9.0 - n))
        assert run.computed == "###"
        assert any("is not clear" in n for n in run.trace.notes)


def test_one_unclear_block_does_not_stop_the_others_from_being_learned():
    class First_(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.tensor(2.0), requires_grad=False)

        def forward(self, picture, other):
            return picture.mean() * self.w * torch.ones(3, 3)  # nothing that it was given

    class Odd(Controlled):
        def __init__(self):
            super().__init__("new tensor")
            self.blocks.insert(0, First_())

        def forward(self, x, timestep):
            h = x + self.blocks[0](x, timestep).mean()
            for block in self.blocks[1:]:
                h = block(h)
            return h

    model = Odd()
    with omnicache.cache(model, STACK) as run, counted(model) as calls:
        for n in range(4):
            x = torch.full((1, 2, 2), float(n))
            assert torch.equal(model(x, 9.0 - n), x + 2 * n + 15)
        assert run.computed == "#ooo"
        assert any("block 0" in n and "is not clear" in n for n in run.trace.notes)
    assert calls["blocks.0"] == 4
    assert calls["blocks.4"] == 1


# --- kept tensors that the model writes to


class Scaling(nn.Module):
    """Writes into what its attention returns, as some blocks do."""

    class SelfAttention(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.tensor(1.0), requires_grad=False)

        def forward(self, x, t):
            return torch.full_like(x, 1.0) * t * self.w

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.attn = Scaling.SelfAttention()

        def forward(self, x, t):
            out = self.attn(x, t)
            out.mul_(10.0)
            return x + out

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([self.Block(), self.Block()])

    def forward(self, x, timestep):
        for block in self.blocks:
            x = block(x, timestep)
        return x


@pytest.mark.parametrize("how", [Hold(), Taylor(1), Taylor(2)])
@pytest.mark.parametrize("interval", [2, 3])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_what_the_model_writes_into_is_never_what_is_kept(how, interval, mode):
    model, x = Scaling(), torch.zeros(1, 2, 2)
    times = [90.0, 90.0 - 1, 88.0, 87.0, 86.0, 85.0, 84.0]
    with omnicache.cache(model, Policy(Every(interval), Attention(), how)) as run, mode():
        outs = [float(model(x, t).mean()) for t in times]
        strip = run.computed
    full = [i for i, m in enumerate(strip) if m == "#"]
    assert full[0] == 0
    assert len(full) < len(times)
    for i in full:
        assert outs[i] == 20 * times[i]
    for i in range(len(times)):
        if i not in full:  # held values, or the line through computed ones: never ten times too large
            newest = max(f for f in full if f < i)
            assert 20 * times[i] - 1 <= outs[i] <= 20 * times[newest] + 1


def test_kept_values_have_the_memory_format_of_what_was_computed():
    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(2))

        def forward(self, x, timestep):
            for block in self.blocks:
                x = block(x)
            return x

    model = Wide().to(memory_format=torch.channels_last).requires_grad_(False)
    x = torch.randn(1, 4, 8, 8).to(memory_format=torch.channels_last)
    with omnicache.cache(model, Policy(First(1), Blocks(), Hold())):
        computed, reused = model(x, 9.0), model(x, 8.0)
    assert torch.equal(computed, reused)
    assert computed.is_contiguous(memory_format=torch.channels_last)
    assert reused.is_contiguous(memory_format=torch.channels_last)


class Eager(Corrector):
    """Wants a rehearsal at every computed step, the first included, and corrects nothing."""

    def rehearse(self, step):
        return (0,)


@pytest.mark.parametrize("where", [Stack(), Blocks(), Attention() | MLP()])
def test_a_rehearsal_teaches_nothing(where):
    """Nor where it has to compute for want of a history: what it saw would stand twice in the ladder of differences."""
    pipe, outs = Pipe(dit()), []
    how = Taylor(1) if where == Attention() | MLP() else Residual(Taylor(1))
    for fix in (None, Eager()):
        with omnicache.cache(pipe, Policy(First(1) | Every(3), where, how, fix=fix)) as run:
            outs.append(pipe())
        assert run.computed == "#..#..#..#"
    assert torch.equal(*outs)


# --- arguments and outputs


def test_a_signature_binds_and_replaces_by_name():
    class Block(nn.Module):
        def forward(self, hidden_states, encoder_hidden_states=None, *, temb=None):
            pass

    s = Signature(Block())
    assert s.bind((1, 2), {"temb": 3}) == {"hidden_states": 1, "encoder_hidden_states": 2, "temb": 3}
    assert s.bind((1, 2, 7), {}) == {"hidden_states": 1, "encoder_hidden_states": 2, "2": 7}
    assert s.replace((1, 2), {"temb": 3}, "encoder_hidden_states", 9) == ((1, 9), {"temb": 3})
    assert s.replace((1,), {"temb": 3}, "temb", 9) == ((1,), {"temb": 9})
    assert s.replace((1, 2, 7), {}, "2", 9) == ((1, 2, 9), {})


def test_outputs_are_taken_apart_and_put_together():
    a, b = torch.ones(1), torch.zeros(2)
    Pair = namedtuple("Pair", "left right")
    for output in (a, (a, b), [a, None, b], (None, a), {"x": a, "y": (b, None)}, OrderedDict(z=a), Pair(a, b), (a, [b, {"w": a}])):
        found = tensors_of(output)
        again = rebuild(output, tuple(t + 1 for t in found))
        assert type(again) is type(output)
        assert all(torch.equal(x + 1, y) for x, y in zip(found, tensors_of(again), strict=True))
    assert tensors_of(None) == tensors_of("text") == ()


def test_a_shape_fills_and_stands_in_without_storage():
    shape = Shape((torch.ones(2, 3), (torch.ones(4, 5, dtype=torch.float16), None)))
    filled = shape.fill((torch.zeros(1), torch.ones(1)))
    assert torch.equal(filled[0], torch.zeros(1))
    assert filled[1][1] is None
    first, (second, none) = shape.stand_in()
    assert first.shape == (2, 3)
    assert second.shape == (4, 5)
    assert second.dtype == torch.float16
    assert none is None
    assert second.untyped_storage().nbytes() == 2  # one number, expanded
    first.add_(1)  # some models write to what a skipped block returned


def test_streams_are_told_by_identity_or_by_shape():
    a, b, c = torch.ones(1, 4, 2), torch.ones(1, 3, 2), torch.ones(1, 2)
    assert layout_by_identity((b, a), {"hidden": a, "text": b, "temb": c}) == Layout(("text", "hidden"))
    assert layout_by_identity((a,), {"hidden": a, "again": a}) is None
    assert layout_by_identity((a * 1,), {"hidden": a}) is None
    assert layout_by_identity((), {"hidden": a}) is None
    assert layout_by_shape((a * 2,), {"hidden": a, "text": b, "temb": c}) == Layout(("hidden",))
    assert layout_by_shape((b, a), {"x": a, "y": b}) == Layout(("y", "x"))
    assert layout_by_shape((a,), {"x": a, "y": a * 2}) is None
    assert layout_by_shape((a,), {"hidden_states": a, "y": a * 2}) == Layout(("hidden_states",))
    assert layout_by_shape((c,), {"temb": c}) is None  # no stream: an embedding
