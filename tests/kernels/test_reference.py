"""Taking rows out, putting them back and matching them, in plain torch, against formulas that are slower and plainer still."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.laws.test_law_12_kernels import DTYPES, dtypes, laid, layouts, seeds

from omnicache.kernels import fill_rows, inverse_of, most_alike, reference, take_rows, weighted_sum


@st.composite
def kept_rows(draw: Any, n: int) -> torch.Tensor:
    """Distinct rows out of n, ``(groups, kept)``, rising within each group."""
    groups = draw(st.integers(1, max(1, n // 2)))
    kept = draw(st.integers(0 if n == 1 else 1, n // groups))
    rows = draw(st.permutations(range(n)))[: groups * kept]
    return torch.tensor([sorted(rows[g * kept : (g + 1) * kept]) for g in range(groups)], dtype=torch.int64).reshape(groups, kept)


@given(st.data(), layouts(2, 2), layouts(2, 2), dtypes, dtypes, seeds)
def test_take_rows(data: Any, layout: Any, other: Any, dtype: torch.dtype, second: torch.dtype, seed: int) -> None:
    (n, width), order, gap = layout
    x = laid(layout, dtype, seed)
    positions = laid(((n, other[0][1]), other[1], other[2]), second, seed + 1)
    once = laid(((1, width), order, gap), dtype, seed + 2).expand(n, width)
    index = data.draw(kept_rows(n))
    taken = take_rows((x, positions, once), index)
    for whole, part in zip((x, positions, once), taken, strict=True):
        assert part.dtype == whole.dtype and part.shape == (*index.shape, whole.shape[1])
        for g, rows in enumerate(index.tolist()):
            assert all(torch.equal(part[g, k], whole[row]) for k, row in enumerate(rows))
        assert not part.numel() or part.data_ptr() != whole.data_ptr()


@given(st.data(), st.integers(1, 12))
def test_inverse_of(data: Any, n: int) -> None:
    index = data.draw(kept_rows(n))
    flat = index.flatten().tolist()
    assert inverse_of(index, n).tolist() == [flat.index(j) if j in flat else -1 for j in range(n)]


@given(st.data(), layouts(2, 2), dtypes, dtypes, seeds, st.booleans())
def test_fill_rows(data: Any, layout: Any, dtype: torch.dtype, of_fresh: torch.dtype, seed: int, compiling: bool) -> None:
    """Also as it is done where nothing may be asked about the numbers: inside a compiled graph, and on a GPU."""
    (n, width), order, gap = layout
    kept, index = laid(layout, dtype, seed), data.draw(kept_rows(n))
    fresh = laid(((index.numel(), width), order, gap), of_fresh, seed + 1) if index.numel() else torch.empty(0, width)
    inverse, before, given_fresh = inverse_of(index, n), kept.clone(), fresh.clone()
    with mock.patch("torch.compiler.is_compiling", return_value=compiling):
        out = fill_rows(fresh, inverse, kept)
    wanted = torch.stack([fresh[i].to(dtype) if i >= 0 else before[j] for j, i in enumerate(inverse.tolist())])
    assert out.dtype == dtype
    assert torch.equal(out, wanted)
    assert torch.equal(kept, wanted)
    assert torch.equal(fresh, given_fresh)
    out.add_(1)
    assert torch.equal(kept, wanted)


@given(st.data(), layouts(2, 2), dtypes, seeds)
def test_taken_and_filled_again(data: Any, layout: Any, dtype: torch.dtype, seed: int) -> None:
    """Rows that nothing is done to come back where they were; all others are the older ones."""
    n = layout[0][0]
    x, older, index = laid(layout, dtype, seed), laid(layout, dtype, seed + 1), data.draw(kept_rows(n))
    wanted = older.clone()
    wanted[index.flatten()] = x[index.flatten()]
    assert torch.equal(fill_rows(take_rows((x,), index)[0].flatten(0, 1), inverse_of(index, n), older), wanted)


@pytest.mark.parametrize("compiling", [False, True])
def test_one_fresh_row_may_stand_in_several_places(compiling: bool) -> None:
    fresh, kept = torch.tensor([[1.0], [2.0]]), torch.zeros(4, 1)
    with mock.patch("torch.compiler.is_compiling", return_value=compiling):
        out = fill_rows(fresh, torch.tensor([1, 0, -1, 1]), kept)
    assert out.flatten().tolist() == kept.flatten().tolist() == [2.0, 1.0, 0.0, 2.0]


def cosines(src: torch.Tensor, dst: torch.Tensor) -> torch.Tensor:
    a, b = (x.double() / x.double().norm(dim=-1, keepdim=True).clamp_min(1e-300) for x in (src, dst))
    return a @ b.mT


@given(layouts(3, 3), layouts(3, 3), dtypes, seeds, st.integers(1, 40))
def test_most_alike(layout: Any, other: Any, dtype: torch.dtype, seed: int, at_once: int) -> None:
    (groups, s, width), d = layout[0], other[0][1]
    src, dst = laid(layout, dtype, seed), laid(((groups, d, width), other[1], other[2]), dtype, seed + 1)
    held, reference.AT_ONCE = reference.AT_ONCE, at_once
    try:
        score, match = most_alike(src, dst)
    finally:
        reference.AT_ONCE = held
    truth = cosines(src, dst)
    assert score.shape == match.shape == (groups, s)
    assert (score.dtype, match.dtype) == (torch.float32, torch.int64)
    assert torch.allclose(score.double(), truth.max(-1).values, atol=1e-5)
    assert torch.allclose(truth.gather(-1, match[..., None])[..., 0], truth.max(-1).values, atol=1e-5)


def test_most_alike_takes_many_groups_of_frames_and_expanded_rows() -> None:
    src = torch.randn(1, 3, 8).expand(5, 3, 8)
    score, match = most_alike(src, src.flip(1))
    assert torch.allclose(score, torch.ones(5, 3), atol=1e-6)
    assert match.tolist() == [[2, 1, 0]] * 5


@pytest.mark.parametrize("dtype", DTYPES)
def test_of_equal_ones_the_lowest_and_zeros_resemble_nothing(dtype: torch.dtype) -> None:
    one, two, none = torch.tensor([3.0, 4.0]), torch.tensor([-4.0, 3.0]), torch.zeros(2)
    dst = torch.stack([two, one, one, none])[None].to(dtype)
    score, match = most_alike(torch.stack([2 * one, none, -one])[None].to(dtype), dst)
    assert match.tolist() == [[1, 0, 0]]
    assert score[0].tolist() == pytest.approx([1.0, 0.0, 0.0], abs=1e-3)


def test_most_alike_stays_wide_under_autocast() -> None:
    src, dst = torch.randn(1, 20, 16), torch.randn(1, 10, 16)
    plain = most_alike(src, dst)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = most_alike(src, dst)
    assert all(map(torch.equal, plain, inside))


def test_most_alike_holds_no_full_matrix() -> None:
    """5,000 by 5,000 similarities would be 100 MB; the largest tensor that is made has ``AT_ONCE`` numbers."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        numbers = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            for t in out if isinstance(out, (tuple, list)) else (out,):
                self.numbers = max(self.numbers, t.numel() if isinstance(t, torch.Tensor) else 0)
            return out

    with Largest() as seen:
        most_alike(torch.randn(1, 5000, 4), torch.randn(1, 5000, 4))
    assert 0 < seen.numbers <= reference.AT_ONCE


@given(layouts(), dtypes, seeds)
def test_the_short_way_of_a_sum_rounds_once(layout: Any, dtype: torch.dtype, seed: int) -> None:
    a, b = laid(layout, dtype, seed), laid(layout, dtype, seed + 1)
    wide = torch.promote_types(dtype, torch.float32)
    assert torch.equal(weighted_sum([a, b], [1.0, 1.0]), (a.to(wide) + b.to(wide)).to(dtype))
