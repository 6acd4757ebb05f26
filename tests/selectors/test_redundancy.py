"""The multidimensional OmniCache's rules R0 to R5, on films of numbers: what is dropped, in which order, and how much."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from omnicache.errors import OmniCacheError
from omnicache.models.grid import Grid
from omnicache.models.map import Site
from omnicache.policy import Chosen, Rows, Selector
from omnicache.runtime.step import Step
from omnicache.selectors import Frames, FramesAndTokens, Positions, Tokens, base, matching

SPACE = Site("blocks.0.attn", "attention", (torch.nn.Identity(),), layer=0, layers=1)
CROSS = Site("blocks.0.attn2", "cross_attention", (torch.nn.Identity(),), layer=0, layers=1)


def film(batch: int = 1, frames: int = 1, side: int = 8, along: str = "space", guided: bool = False, seed: int = 0) -> Rows:
    grid = Grid(batch, frames, side, side, along, 0, guided)
    x = torch.randn(grid.entries, grid.rows, 5, generator=torch.Generator().manual_seed(seed))
    return Rows(x, grid)


def chosen(selector: Selector, rows: Rows, step: int = 1, site: Site = SPACE, state: Any = None) -> Chosen:
    found, _ = selector.choose(state if state is not None else selector.init(), site, Step(step), rows)
    assert found is not None
    return found


def dropped(found: Chosen, rows: Rows) -> torch.Tensor:
    out = torch.ones(rows.x.shape[0] * rows.x.shape[1], dtype=torch.bool)
    out[found.index.flatten()] = False
    return out


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.33, 0.5, 0.75])
def test_so_many_tokens_are_dropped_and_one_of_each_square_stays(ratio):
    rows = film(2, 3)
    found = chosen(Tokens(ratio), rows)
    assert found.index.shape == (6, 64 - int(ratio * 64))
    assert (found.index.diff(dim=1) > 0).all()  # in their order
    assert torch.equal(found.index[:, 0] // 64, torch.arange(6))
    kept = ~dropped(found, rows).view(6, 4, 2, 4, 2)
    assert kept.transpose(2, 3).flatten(3).any(3).all()


def test_the_most_alike_go():
    """Two squares of equal tokens, among tokens at right angles: three of each go, and whatever else is not needed stays."""
    x = torch.eye(16).clone()
    for square in ((0, 1, 4, 5), (10, 11, 14, 15)):
        x[list(square)] = x[square[0]].clone()
    rows = Rows(x[None], Grid(1, 1, 4, 4, "space"))
    gone = dropped(chosen(Tokens(6 / 16), rows), rows).nonzero().flatten().tolist()
    assert len(set(gone) & {0, 1, 4, 5}) == len(set(gone) & {10, 11, 14, 15}) == 3


@pytest.mark.parametrize(
    ("made", "most"),
    [
        (lambda: Tokens(0.76), "0.75"),
        (lambda: Tokens(0.5, hierarchy=(0.3,)), "0.75"),
        (lambda: Positions(0.76), "0.75"),
        (lambda: Frames(0.51, neighbours=2), "0.50"),
        (lambda: FramesAndTokens(0.4, frames=0.51), "0.50"),
        (lambda: FramesAndTokens(0.51, frames=0.5), "0.50"),
        (lambda: FramesAndTokens(0.3, frames=0.5, hierarchy=(0.3,)), "0.50"),
        (lambda: Frames(0.5, neighbours=2, hierarchy=(0.3,)), "0.50"),
    ],
)
def test_more_than_what_must_stay_is_refused(made, most):
    with pytest.raises(OmniCacheError, match=f"at most {most}"):
        made()


def test_groups_at_an_edge_are_small_and_less_goes():
    rows = Rows(torch.randn(1, 25, 4), Grid(1, 1, 5, 5, "space"))
    assert chosen(Tokens(0.75), rows).index.shape == (1, 9)


def test_frames_make_their_groups_as_large_as_the_ratio_needs():
    rows = film(1, 12)
    assert len(chosen(Frames(0.5), rows).index) == 6
    assert len(chosen(Frames(0.75), rows).index) == 3


@pytest.mark.parametrize(("frames", "share", "ratio"), [(25, 12 / 25, 0.5), (8, 0.5, 0.3), (9, 0.25, 0.0)])
def test_the_combined_cache_makes_equal_sequences_of_pairs_and_single_frames(frames, share, ratio):
    rows = film(2, frames)
    found = chosen(FramesAndTokens(ratio, frames=share), rows)
    pairs = int(share * frames + 1e-9)
    assert found.index.shape == (2 * (frames - pairs), 64 - int(ratio * 64))
    left = (1 - pairs / frames) * (1 - int(ratio * 64) / 64)
    assert (~dropped(found, rows)).float().mean() == pytest.approx(left)
    if frames == 25:
        assert left == pytest.approx(0.26)
    of = found.index // 64 % frames  # the frames that are in each sequence: one, or two neighbours beginning with an even one
    first, last = of.amin(1), of.amax(1)
    assert ((last == first) | ((last == first + 1) & (first % 2 == 0))).all()
    assert int((last > first).sum()) <= 2 * pairs
    assert (first.view(2, -1).diff(dim=1) > 0).all()  # in the order of time
    stays = ~dropped(found, rows).view(2, frames, 4, 2, 4, 2)
    stays = stays.transpose(3, 4).flatten(4).sum(4)  # in each square of each frame
    assert (stays[:, : frames // 2 * 2].unflatten(1, (-1, 2)).sum(2) >= 2).all()  # two of each cube, or one of each square


@pytest.mark.parametrize(("height", "width"), [(1, 2), (1, 1), (3, 3), (2, 5), (5, 7)])
def test_small_uneven_frames_are_combined_as_far_as_they_can(height, width):
    grid = Grid(1, 5, height, width, "space")
    rows = Rows(torch.randn(5, height * width, 4), grid)
    found = chosen(FramesAndTokens(0.5, frames=0.4), rows)
    assert found.index.shape[0] in (3, 5)
    assert len(set(found.index.flatten().tolist())) == found.index.numel()


def test_what_looks_at_a_condition_of_its_frame_stays_in_its_frame():
    rows = film(1, 6)
    found = chosen(FramesAndTokens(0.5, frames=0.5), rows, site=CROSS)
    assert found.index.shape == (6, 32)
    assert torch.equal(found.index // 64, torch.arange(6)[:, None].expand(-1, 32))
    frames = chosen(Frames(0.5, patches=4), rows, site=CROSS)
    assert all(len(set((i // 64).tolist())) == 1 for i in frames.index)


def test_dropped_positions_leave_time_whole_and_dropped_frames_space():
    found = chosen(Positions(0.5), film(2, 6, along="time"))
    assert found.index.shape == (2 * 32, 6)
    assert torch.equal(found.index % 6, torch.arange(6).expand(64, -1))
    found = chosen(Frames(0.5), film(2, 6))
    assert found.index.shape == (2 * 3, 64)
    assert torch.equal(found.index % 64, torch.arange(64).expand(6, -1))
    # and, mismatched, the other way round
    assert chosen(Positions(0.5), film(2, 6)).index.shape == (12, 32)
    assert chosen(Frames(0.5), film(2, 6, along="time")).index.shape == (128, 3)


@pytest.mark.parametrize("along", ["space", "time", "film"])
@pytest.mark.parametrize("kind", [Frames, Positions])
def test_the_same_is_dropped_however_the_rows_lie(kind, along):
    """The film as one table, and as a module along another axis has it: the same frames and positions of it are computed."""
    rows = film(2, 6, 4)
    x = rows.grid.film(rows.x)
    grid = Grid(2, 6, 4, 4, along)
    laid = {"space": x, "time": x.movedim(1, 3), "film": x}[along].reshape(grid.entries, grid.rows, -1)
    there = Rows(laid, grid)
    places = grid.film(torch.arange(grid.entries * grid.rows).view(grid.entries, -1)).flatten()
    kept = ~dropped(chosen(kind(0.5), there), there)[places]
    assert torch.equal(kept, ~dropped(chosen(kind(0.5), rows), rows))


@pytest.mark.parametrize("patches", [1, 2, 4])
@pytest.mark.parametrize(("kind", "along"), [(Tokens, "space"), (Positions, "time")])
def test_every_patch_drops_as_many(kind, along, patches, monkeypatch):
    looked = []
    plain = matching.most_alike
    monkeypatch.setattr(matching, "most_alike", lambda a, b: looked.append(a.shape[0] * a.shape[1] * b.shape[1]) or plain(a, b))
    rows = film(2, 3, 16, along=along)
    gone = dropped(chosen(kind(0.5, patches=patches), rows), rows).view(rows.x.shape[:2])
    gone = rows.grid.film(gone)[:, 0].view(2, patches, 16 // patches, patches, 16 // patches)
    assert (gone.transpose(2, 3).flatten(3).sum(3) == 128 // patches**2).all()
    problems = 6 if kind is Tokens else 2
    assert looked == [problems * 192 * 64 // patches**2]  # similarities are fewer by the square


def test_patches_of_frames_drop_their_own_and_are_stacked(monkeypatch):
    looked = []
    plain = matching.most_alike
    monkeypatch.setattr(
        matching, "most_alike", lambda a, b: looked.append(a.shape[0] * a.shape[1] * b.shape[1] * a.shape[2]) or plain(a, b)
    )
    rows = film(1, 6)
    # the left half stands still from frame 0 to 1, the right half from frame 4 to 5
    x = rows.x.view(6, 8, 8, 5).clone()
    x[1, :, :4], x[5, :, 4:] = x[0, :, :4], x[4, :, 4:]
    rows = Rows(x.view(6, 64, 5), rows.grid)
    found = chosen(Frames(1 / 6, patches=2), rows)
    assert found.index.shape == (5, 64)
    assert torch.equal(found.index % 64, torch.arange(64).expand(5, -1))
    of = (found.index // 64).view(5, 8, 8)
    assert {tuple(of[:, 0, c].tolist()) for c in range(4)} <= {(1, 2, 3, 4, 5), (0, 2, 3, 4, 5)}
    assert {tuple(of[:, 0, c].tolist()) for c in range(4, 8)} <= {(0, 1, 2, 3, 5), (0, 1, 2, 3, 4)}
    chosen(Frames(1 / 6), rows)
    assert looked[0] == looked[1]  # patching does not make comparing frames cheaper


def test_a_hierarchy_drops_more_after_patches_are_joined():
    rows = film(1, 1, 16)
    found = chosen(Tokens(0.25, patches=4, hierarchy=(0.25, 0.125), stand_in="match"), rows)
    assert found.index.shape == (1, 256 - 64 - 64 - 32)
    assert found.stand_in is not None
    assert not dropped(found, rows)[found.stand_in.flatten()].any()  # whatever an earlier level matched is still there
    frames = film(1, 8, 8)
    found = chosen(Frames(0.5, patches=2, hierarchy=(0.25,), stand_in="match"), frames)
    assert found.index.shape == (2, 64)  # shares of all frames, not of what was left
    assert not dropped(found, frames)[found.stand_in.flatten()].any()


def test_an_uneven_grid_is_cut_into_as_many_patches_as_fit():
    grid = Grid(1, 1, 10, 14, "space")
    rows = Rows(torch.randn(1, 140, 4), grid)
    assert Tokens(0.5, patches=4).levels(10, 14) == [(2, 0.5)]
    assert chosen(Tokens(0.5, patches=4), rows).index.shape == (1, 140 - 4 * 17)
    odd = Rows(torch.randn(1, 35, 4), Grid(1, 1, 5, 7, "space"))
    assert chosen(Tokens(0.5, patches=4), odd).index.shape == (1, 18)


@pytest.mark.parametrize(("ratio", "patches"), [(0.2, 2), (0.4, 2), (0.5, 2), (0.05, 1), (0.01, 1)])
def test_patches_are_large_enough_to_choose_and_to_drop_the_ratio(ratio, patches):
    """A patch of four cells has nothing to choose among, and 0.05 of one of sixteen is none."""
    assert matching.fitting(8, 8, 4, 2, ratio) == patches
    rows = film(1, 1)
    assert chosen(Tokens(ratio, patches=4), rows).index.shape == (1, 64 - int(ratio * (64 // patches**2)) * patches**2)


@pytest.mark.parametrize(("redraw", "mean"), [(True, 4.0), (False, None)])
def test_the_lottery_refreshes_what_looks_redundant(redraw, mean):
    """With features that never change the tokens of a square are equal: each is destination, and so new, at every fourth step."""
    grid = Grid(1, 1, 16, 16, "space")
    x = torch.randn(1, 8, 1, 8, 1, 4).expand(-1, -1, 2, -1, 2, -1).reshape(1, 256, 4)
    age, seen = torch.zeros(256), []
    for step in range(1, 200):
        gone = dropped(chosen(Tokens(0.75, redraw=redraw), Rows(x, grid), step), Rows(x, grid))
        seen += (age[~gone] + 1).tolist() if step > 40 else []
        age = torch.where(gone, age + 1, 0)
    if redraw:
        assert sum(seen) / len(seen) == pytest.approx(mean, abs=0.3)
        assert age.max() < 60
    else:
        assert age.max() == 199  # those that lose once lose for ever


@pytest.mark.parametrize(
    ("selector", "along"),
    [
        (Tokens(0.25, redraw=False, max_age=3), "space"),
        (Tokens(0.5, redraw=False, max_age=3), "space"),
        (Tokens(0.75, max_age=3), "space"),
        (Tokens(0.5, max_age=1), "space"),
        (Tokens(0.25, patches=2, hierarchy=(0.25, 0.125), max_age=4), "space"),
        (Tokens(0.5, max_age=3), "film"),
        (Positions(0.5, redraw=False, max_age=3), "time"),
        (Frames(0.5, max_age=1), "space"),
        (Frames(0.4, patches=2, redraw=False, max_age=2), "space"),
        (FramesAndTokens(0.5, frames=0.5, max_age=3), "space"),
        (FramesAndTokens(0.0, frames=0.4, redraw=False, max_age=1), "space"),
        (FramesAndTokens(0.25, frames=0.4, hierarchy=(0.25,), redraw=False, max_age=5), "space"),
    ],
)
@pytest.mark.parametrize("side", [8, 10])
def test_nothing_grows_older_than_it_may(selector, along, side):
    rows, state = film(2, 5, side, along), selector.init()
    age = torch.zeros(rows.x.shape[0] * rows.x.shape[1])
    for step in range(1, 30):
        found, state = selector.choose(state, SPACE, Step(step), rows)
        age = torch.where(dropped(found, rows), age + 1, 0)
        assert age.max() <= selector.max_age
    assert found.index.numel() < age.numel()


def test_an_age_that_cannot_be_kept_is_refused():
    for make, most in (
        (
            lambda: Tokens(0.51, max_age=1),
            "2 of each 4 stay, so that none is dropped more than 1 times in a row, so it is at most 0.50",
        ),
        (lambda: FramesAndTokens(0.1, frames=0.5, max_age=1), "4 of each 8 stay, so it is at most 0.00"),
        (lambda: Frames(0.5, hierarchy=(0.2,), max_age=3), "whose turn it is"),
    ):
        with pytest.raises(OmniCacheError, match=most):
            make()


def test_halves_of_a_guided_batch_drop_the_same():
    rows = film(4, 2, guided=True)
    found = chosen(Tokens(0.4), rows)
    first, second = (found.index.view(2, 4, -1) % 64).unbind()
    assert torch.equal(first, second)
    apart = chosen(Tokens(0.4, aligned=False), rows).index.view(2, 4, -1) % 64
    assert not torch.equal(apart[0], apart[1])
    same = Rows(rows.x.view(2, 4, 64, 5)[:1].expand(2, -1, -1, -1).reshape(8, 64, 5), rows.grid)
    apart = chosen(Tokens(0.4, aligned=False), same).index.view(2, 4, -1) % 64
    assert torch.equal(apart[0], apart[1])  # identical halves by themselves
    for selector in (Frames(0.5), Positions(0.5), FramesAndTokens(0.3, frames=0.5)):
        found = chosen(selector, film(4, 4, guided=True)).index
        one, two = found.chunk(2)
        assert torch.equal(one, two - 2 * 4 * 64)


def test_a_shared_table_of_positions_makes_all_drop_the_same():
    rows = film(3, 2)
    found = chosen(Tokens(0.4), Rows(rows.x, rows.grid, together=True)).index % 64
    assert (found == found[:1]).all()


def test_of_a_film_in_one_sequence_each_frame_drops_its_own_though_the_table_is_shared():
    rows = film(2, 4, along="film")
    for selector in (Tokens(0.5), Frames(0.5, patches=2), Positions(0.5)):
        first, second = chosen(selector, Rows(rows.x, rows.grid, together=True)).index.unbind()
        assert torch.equal(first, second - 4 * 64)
    gone = dropped(chosen(Tokens(0.5), Rows(rows.x, rows.grid, together=True)), rows).view(2, 4, 64)
    assert not torch.equal(gone[0, 0], gone[0, 2])


def test_of_a_film_in_one_sequence_tokens_are_compared_in_cubes():
    """All eight tokens of a cube are the same: one of them stays, in one of its two frames, and the others match it."""
    x = torch.randn(2, 1, 4, 1, 4, 1, 5).expand(-1, 2, -1, 2, -1, 2, -1).reshape(1, 256, 5)
    rows = Rows(x, Grid(1, 4, 8, 8, "film"))
    found = chosen(Tokens(0.75, stand_in="match"), rows)
    assert found.index.shape == (1, 64) and (found.index.diff() > 0).all()
    assert (~dropped(found, rows)).view(2, 2, 4, 2, 4, 2).sum((1, 3, 5)).min() >= 1
    assert torch.allclose(x[0][found.stand_in[:, 0]], x[0])  # a token and its match look alike
    odd = film(1, 5, along="film")
    found = chosen(Tokens(0.5, stand_in="between"), odd)
    assert found.index.shape == (1, 5 * 32)
    assert torch.allclose(found.weights.sum(1), torch.ones(320))
    assert not dropped(found, odd)[found.stand_in[found.weights > 0]].any()


def test_frames_are_not_paired_where_sequences_share_a_table_and_the_run_says_so():
    rows = film(2, 4)
    for there in (Rows(rows.x, rows.grid, together=True), film(2, 4, along="film")):
        found = chosen(FramesAndTokens(0.25, frames=0.5), there)
        assert torch.equal(found.index, chosen(Tokens(0.25), there).index)
        assert "Frames were not paired" in found.note
    assert chosen(FramesAndTokens(0.25, frames=0.5), rows).note == ""


def test_stand_ins_between_frames_and_tokens_are_the_mean_of_what_stays_of_their_cube():
    rows = film(1, 4, 4)
    found = chosen(FramesAndTokens(0.25, frames=0.5, stand_in="between"), rows)
    gone = dropped(found, rows)
    assert found.weights is not None and torch.allclose(found.weights.sum(1), torch.ones(64))
    for row in range(64):
        told = {int(r) for r, w in zip(found.stand_in[row], found.weights[row], strict=True) if w > 0}
        cube = {r for r in range(64) if (r // 32, r // 8 % 2, r % 4 // 2) == (row // 32, row // 8 % 2, row % 4 // 2)}
        assert told == (cube - set(gone.nonzero().flatten().tolist()) if gone[row] else {row})


def test_text_before_the_picture_always_stays():
    grid = Grid(2, 1, 4, 4, "space", before=3)
    rows = Rows(torch.randn(2, 19, 4), grid)
    found = chosen(Tokens(0.5), rows)
    assert found.index.shape == (2, 3 + 8)
    assert torch.equal(found.index[:, :3], torch.tensor([[0, 1, 2], [19, 20, 21]]))


def test_stand_ins_between_frames_are_weighted_by_time():
    rows = film(1, 5, 2)
    between = chosen(Frames(0.4, stand_in="between"), rows)
    assert between.weights is not None
    kept = sorted(set((between.index // 4).flatten().tolist()))
    when = (between.stand_in // 4).float()
    means = (when * between.weights).sum(1).view(5, 4)
    for frame in range(kept[0], kept[-1] + 1):
        assert (means[frame] == frame).all()  # a value that is linear in time is found again
    assert torch.allclose(between.weights.sum(1), torch.ones(20))


def test_stand_ins_between_tokens_are_the_mean_of_what_stays_of_their_square():
    rows = film(1, 1, 4)
    found = chosen(Tokens(0.5, stand_in="between"), rows)
    gone = dropped(found, rows)
    for row in range(16):
        members = {r for r in range(16) if (r // 8, r % 4 // 2) == (row // 8, row % 4 // 2) and not gone[r]}
        told = {int(r): float(w) for r, w in zip(found.stand_in[row], found.weights[row], strict=True) if w > 0}
        assert set(told) == (members if gone[row] else {row})
        assert all(w == pytest.approx(1 / len(told)) for w in told.values())


def test_the_base_class_names_no_units():
    with pytest.raises(NotImplementedError):
        chosen(base.Redundancy(), film())
