"""Law 12: kernels equal their formulas over random shapes, dtypes and strides."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from omnicache.kernels import fill_rows, inverse_of, relative_change, take_rows, weighted_sum

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
seeds = st.integers(0, 2**31 - 1)
dtypes = st.sampled_from(DTYPES)


@st.composite
def layouts(draw: Any, least: int = 1, most: int = 4) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """A shape, an order of its axes in memory, and how far apart neighbours lie."""
    shape = draw(st.lists(st.integers(1, 5), min_size=least, max_size=most).map(tuple))
    return shape, tuple(draw(st.permutations(range(len(shape))))), draw(st.integers(1, 2))


def laid(layout: tuple[tuple[int, ...], tuple[int, ...], int], dtype: torch.dtype, seed: int) -> torch.Tensor:
    """Numbers in that memory layout: axes turned, gaps between entries, views of a larger storage."""
    shape, order, gap = layout
    made = torch.randn([shape[i] * gap for i in order], generator=torch.Generator().manual_seed(seed)).to(dtype)
    made = made[tuple(slice(None, None, gap) for _ in order)]
    out = made.permute([order.index(i) for i in range(len(order))])
    assert out.shape == shape
    return out


@given(layouts(), dtypes, seeds, st.lists(st.floats(-3, 3).map(lambda x: round(x, 2)), min_size=1, max_size=5))
def test_weighted_sum(layout: Any, dtype: torch.dtype, seed: int, weights: list[float]) -> None:
    history = [laid(layout, dtype, seed + i) for i in range(len(weights))]
    before = [h.clone() for h in history]
    out = weighted_sum(history, weights)
    wanted = sum(h.double() * w for h, w in zip(history, weights, strict=True))
    assert out.dtype == dtype
    assert out.shape == layout[0]
    summed = sum(h.double().abs() * abs(w) for h, w in zip(history, weights, strict=True))
    assert bool(((out - wanted).abs() <= 4 * torch.finfo(dtype).eps * summed).all())
    assert all(map(torch.equal, history, before))
    assert all(out.data_ptr() != h.data_ptr() for h in history)


@pytest.mark.parametrize("dtype", DTYPES)
def test_weighted_sum_does_not_read_what_weighs_nothing(dtype: torch.dtype) -> None:
    bad, good = torch.full((3,), float("nan"), dtype=dtype), torch.ones(3, dtype=dtype)
    assert torch.equal(weighted_sum([bad, good], [0.0, 2.0]), 2 * good)
    assert torch.equal(weighted_sum([bad], [0.0]), 0 * good)


def test_weighted_sum_is_summed_wide() -> None:
    """In half precision 2048 + 1 is 2048; the sum must not stop there."""
    parts = [torch.tensor([2048.0]), *[torch.tensor([1.0])] * 8]
    assert weighted_sum([p.half() for p in parts], [1.0] * 9).item() == 2056


@given(layouts(least=2), dtypes, seeds, st.sampled_from(["l1", "l2"]))
def test_relative_change(layout: Any, dtype: torch.dtype, seed: int, norm: str) -> None:
    now, before = laid(layout, dtype, seed), laid(layout, dtype, seed + 1)
    out = relative_change(now, before, norm)
    assert out.shape == layout[0][:1]
    assert out.dtype == torch.float32
    for i in range(len(now)):
        diff, base = (now[i] - before[i]).double().flatten(), before[i].double().flatten()
        power = 1 if norm == "l1" else 2
        wanted = (diff.abs() ** power).sum() / (base.abs() ** power).sum()
        assert float(out[i]) == pytest.approx(float(wanted) ** (1 / power), rel=1e-4)


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_relative_change_of_nothing(norm: str) -> None:
    """Zero to zero is no change, from zero is an infinite one, and what is not a number stays so."""
    now = torch.tensor([[0.0, 0.0], [0.0, 1.0], [float("nan"), 1.0], [1.0, 1.0]])
    before = torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, 1.0], [1.0, float("nan")]])
    a, b, c, d = relative_change(now, before, norm).tolist()
    assert (a, b) == (0.0, float("inf"))
    assert c != c
    assert d != d


@st.composite
def rows(draw: Any) -> tuple[Any, list[list[int]]]:
    """A layout ``(batch, n, width)`` and, for each sample, distinct rows in rising order."""
    (batch, n, width), order, gap = draw(layouts(3, 3))
    k = draw(st.integers(1, n))
    chosen = [sorted(draw(st.permutations(range(n)))[:k]) for _ in range(batch)]
    return ((batch, n, width), order, gap), chosen


@given(rows(), dtypes, seeds)
def test_rows_taken_out_and_put_back(given_rows: Any, dtype: torch.dtype, seed: int) -> None:
    layout, chosen = given_rows
    x = laid(layout, dtype, seed)
    batch, n, width = x.shape
    index = torch.tensor(chosen) + torch.arange(batch)[:, None] * n
    (taken,) = take_rows((x.flatten(0, 1),), index)
    assert torch.equal(taken, torch.stack([x[b, c] for b, c in enumerate(chosen)]))

    fresh = laid((tuple(taken.shape), layout[1], layout[2]), dtype, seed + 1)
    kept, inverse = x.reshape(-1, width).clone(), inverse_of(index, batch * n)
    out = fill_rows(fresh.reshape(-1, width), inverse, kept)
    assert torch.equal(out, kept)
    for b, r in itertools.product(range(batch), range(n)):
        wanted = fresh[b, chosen[b].index(r)] if r in chosen[b] else x[b, r]
        assert torch.equal(out[b * n + r], wanted)
    assert torch.equal(fill_rows(taken.flatten(0, 1), inverse, kept), x.reshape(-1, width))


def test_entries_of_weight_zero_are_not_read() -> None:
    lost = torch.full((2, 3), torch.nan)
    for history, weights in (([torch.ones(2, 3), lost], [1.0, 0.0]), ([lost, torch.ones(2, 3)], [0.0, 1.0])):
        assert torch.equal(weighted_sum(history, weights), torch.ones(2, 3))
