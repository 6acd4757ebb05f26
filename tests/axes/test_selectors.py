"""Which rows are computed even on a reuse step: what the runtime does with a selector's choice."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import nn

import omnicache
from omnicache.errors import OmniCacheError
from omnicache.granularity import MLP, Attention
from omnicache.plan import Plan
from omnicache.policy import Chosen, Policy, Selector
from omnicache.predictors import Hold, Taylor
from omnicache.triggers import First

from ..methods.tiny import Pipe, dit, sd3


@dataclass(frozen=True, eq=False)
class Fixed(Selector):
    """Always the same rows, and a note of what it was told."""

    rows: tuple[int, ...] = (3, 5)
    told: list = field(default_factory=list)
    watch: Any = None

    def observe(self, state, site, bound, output):
        self.told.append((site.name, tuple(bound["hidden_states"].shape)))
        return state

    def choose(self, state, site, step, rows):
        entries, length = rows.x.shape[:2]
        self.told.append((site.name, step.index, tuple(rows.x.shape)))
        return Chosen(torch.tensor(self.rows) + length * torch.arange(entries)[:, None]), state


def test_chosen_rows_are_fresh_and_the_others_are_those_kept():
    model = dit(layers=2)
    pipe, rows, wholes = Pipe(model), [], []
    block = model.transformer_blocks[0]
    with omnicache.cache(pipe, Policy(First(1), MLP(), Hold(), which=Fixed())) as run:
        hooks = [block.norm3.register_forward_hook(lambda m, args, out: wholes.append(out))]
        hooks += [block.ff.register_forward_hook(lambda m, args, out: rows.append((args[0], out)))]
        pipe(num_inference_steps=5, guidance="batched")
        for hook in hooks:
            hook.remove()
    assert run.computed == "#oooo"
    assert [given.shape[1] for given, _ in rows] == [16, 2, 2, 2, 2]
    assert [out.shape[1] for out in wholes] == [16] * 5  # norms and modulation stay live for all rows
    for given, out in rows[1:]:
        torch.testing.assert_close(block.ff(given), out)


def test_it_is_told_of_the_watched_sites_on_computed_steps_only():
    fixed = Fixed(watch=Attention())
    pipe = Pipe(dit(layers=2))
    with omnicache.cache(pipe, Policy(First(2), MLP(), Hold(), which=fixed)):
        pipe(num_inference_steps=5)
    watched = [t for t in fixed.told if len(t) == 2]
    chosen = [t for t in fixed.told if len(t) == 3]
    assert watched == [(f"transformer_blocks.{i}.attn1", (1, 16, 16)) for i in (0, 1)] * 2
    assert chosen == [(f"transformer_blocks.{i}.ff", step, (1, 16, 16)) for step in (2, 3, 4) for i in (0, 1)]


def test_all_rows_are_the_module_itself():
    pipe = Pipe(dit())
    plain = pipe(num_inference_steps=6)
    with omnicache.cache(pipe, Policy(First(1), MLP(), Hold(), which=Fixed(tuple(range(16))))):
        torch.testing.assert_close(pipe(num_inference_steps=6), plain, rtol=1e-6, atol=1e-4)


def test_rows_of_a_module_whose_other_arguments_go_with_them_are_not_taken_alone():
    """In attention rows look at each other: they cannot be computed without the others, which is said, and all are computed."""
    pipe = Pipe(sd3())
    with omnicache.cache(pipe, Policy(First(1), Attention(), Hold(), which=Fixed())) as run:
        partial = pipe(num_inference_steps=5)
        assert any("rows cannot be taken alone" in n for n in run.trace.notes)
    assert torch.equal(pipe(num_inference_steps=5), partial)


def test_rows_refresh_the_last_value_so_they_need_hold():
    with pytest.raises(OmniCacheError, match=r"needs how=Hold\(\)"):
        Plan("mine", (Policy(First(1), MLP(), Taylor(1), which=Fixed()),))


class PlacedAttention(nn.Module):
    """Answers with the positions of its rows, and remembers the table that it was given."""

    def __init__(self):
        super().__init__()
        self.scale, self.given = nn.Parameter(torch.ones(1)), []

    def forward(self, hidden_states, encoder_hidden_states, image_rotary_emb):
        self.given.append(image_rotary_emb)
        return torch.zeros_like(hidden_states) + image_rotary_emb[..., -hidden_states.shape[1] :, :]


class Placed(nn.Module):
    """Such an attention alone, beside a text."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.ModuleDict({"attn": PlacedAttention()})])

    def forward(self, hidden_states, timestep, table):
        text = torch.zeros(len(hidden_states), TEXT, 3)
        return self.blocks[0]["attn"](hidden_states, encoder_hidden_states=text, image_rotary_emb=table)


ENTRIES, ROWS, TEXT = 2, 6, 4
JOINT = torch.arange(30.0).view(TEXT + ROWS, 3)
EACH = torch.arange(36.0).view(ENTRIES, ROWS, 3)
JOINT_EACH = torch.arange(60.0).view(ENTRIES, TEXT + ROWS, 3)


@dataclass(frozen=True, eq=False)
class Listed(Selector):
    """Always these rows, counted over all entries."""

    index: tuple[tuple[int, ...], ...]
    mixes = True

    def choose(self, state, site, step, rows):
        return Chosen(torch.tensor(self.index)), state


@pytest.mark.parametrize(
    ("table", "index"),
    [
        pytest.param(JOINT, ((1, 4), (7, 10)), id="text and picture"),
        pytest.param(JOINT, ((7, 10),), id="text and picture, one entry"),
        pytest.param(JOINT[None], ((1, 4), (7, 10)), id="text and picture, with an axis of one"),
        pytest.param(JOINT_EACH, ((1, 4), (6, 11)), id="text and picture, one an entry"),
        pytest.param(JOINT_EACH, ((8, 11),), id="text and picture, one an entry, the second only"),
        pytest.param(EACH, ((1, 4), (6, 11)), id="one an entry"),
        pytest.param(EACH, ((8, 11),), id="one an entry, the second only"),
        pytest.param(EACH, ((4, 7),), id="one an entry, a sequence of both"),
    ],
)
def test_kept_rows_take_their_own_positions_and_the_text_all_of_its(table, index):
    """At the second step all positions are 100 higher, so that an answer tells when, and for which row, it was made."""
    model, kept, later = Placed(), [row for sequence in index for row in sequence], table + 100
    x = torch.zeros(ENTRIES, ROWS, 3)
    with torch.no_grad(), omnicache.cache(model, Policy(First(1), Attention(), Hold(), which=Listed(index))) as run:
        model(x, torch.tensor([2.0]), table=table)
        out = model(x, torch.tensor([1.0]), table=later).flatten(0, 1)
    assert run.computed == "#o"
    before, now = (t[..., -ROWS:, :].expand_as(x).flatten(0, 1) for t in (table, later))
    wanted = before.clone()
    wanted[kept] = now[kept]
    assert torch.equal(out, wanted)
    text = model.blocks[0]["attn"].given[-1][..., : -len(index[0]), :]
    mine = later[[sequence[0] // ROWS for sequence in index]] if len(table) == ENTRIES else later
    assert torch.equal(text.reshape(-1, 3), mine[..., :-ROWS, :].reshape(-1, 3))
