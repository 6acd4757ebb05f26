"""Every Triton twin against its reference. ``test_twins.py`` runs this file by itself: in Triton's interpreter, where all tensors
are on the CPU, and on a GPU.

Rows are moved to the bit. Sums differ in their order only: a few roundings of float32, and then one of the result's dtype, which
the interpreter cuts off in bfloat16 instead of rounding it.
"""

from __future__ import annotations

import itertools
import os
from typing import Any

import pytest
import torch

from omnicache import kernels
from omnicache.kernels import dispatch, reference

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
HALF = (torch.float16, torch.bfloat16)
DTYPES = (*HALF, torch.float32)
AGAIN = 2 if INTERPRETED else 100
LONG = 2000 if INTERPRETED else 20_000

pytestmark = pytest.mark.filterwarnings("error:OmniCache:RuntimeWarning")  # a twin that gives up says so by one


@pytest.fixture(autouse=True)
def _taken(request: Any, monkeypatch: Any) -> Any:
    """Something in a test is answered by a twin; in tests of what twins leave to the reference, nothing is."""
    taken: list[bool] = []
    attempt = dispatch.attempt

    def counted(*given: Any) -> Any:
        made = attempt(*given)
        taken.append(made is not None)
        return made

    monkeypatch.setattr(dispatch, "attempt", counted)
    yield
    assert taken
    assert any(taken) is ("left" not in request.fixturenames)


@pytest.fixture
def left() -> None:
    """What the test asks for is left to the reference."""


@pytest.fixture
def short(monkeypatch: Any) -> None:
    """Rows count as long sooner: the interpreter is slow."""
    if not INTERPRETED:
        return
    from omnicache.kernels import triton_match

    monkeypatch.setattr(triton_match, "LONG", LONG)


def drawn(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


def chosen(groups: int, kept: int, n: int) -> torch.Tensor:
    rows = torch.randperm(n, generator=torch.Generator().manual_seed(n))[: groups * kept].reshape(groups, kept)
    return rows.sort(-1).values.to(DEVICE)


def near(made: torch.Tensor, wanted: torch.Tensor, size: torch.Tensor | None = None, steps: float = 8.0) -> None:
    """Up to ``steps`` steps of float32 and two of the result's dtype, of the largest number that was summed."""
    eps = steps * torch.finfo(torch.float32).eps + (2 * torch.finfo(made.dtype).eps if made.dtype in HALF else 0)
    bound = eps * (wanted.double().abs() if size is None else size.double()) + 1e-7
    off = (made.double() - wanted.double()).abs()
    assert made.dtype == wanted.dtype
    assert made.shape == wanted.shape
    assert bool((off <= bound).all()), f"off by {float((off / bound).max()):.2f} times what is allowed"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", range(1, 9))
@pytest.mark.parametrize("shape", [(3,), (2, 37, 50), (5, 2048)])
def test_weighted_sum(shape: tuple[int, ...], count: int, dtype: torch.dtype) -> None:
    history = [drawn(*shape, dtype=dtype, seed=i) for i in range(count)]
    weights = [1.5, -0.7, 0.2, 0.5, 1.0, 2.0, -1.0, 0.25][:count]
    size = reference.weighted_sum([h.abs() for h in history], [abs(w) for w in weights])
    near(kernels.weighted_sum(history, weights), reference.weighted_sum(history, weights), size)


@pytest.mark.parametrize("kinds", itertools.product(DTYPES, DTYPES))
def test_weighted_sum_of_two_kinds(kinds: tuple[torch.dtype, torch.dtype]) -> None:
    history = [drawn(6, 7, dtype=kind, seed=i) for i, kind in enumerate(kinds)]
    near(kernels.weighted_sum(history, [1.0, 0.5]), reference.weighted_sum(history, [1.0, 0.5]), 1.0 + history[0].abs())


def test_weighted_sum_keeps_a_turned_layout_and_reads_nothing_that_weighs_nothing() -> None:
    turned = [drawn(4, 6, 5, seed=i).permute(2, 0, 1) for i in range(2)]
    lost = torch.full_like(turned[0], float("nan"))
    made = kernels.weighted_sum([*turned, lost], [2.0, -1.0, 0.0])
    near(made, reference.weighted_sum(turned, [2.0, -1.0]), 2 * turned[0].abs() + turned[1].abs())
    assert made.stride() == turned[0].stride()


@pytest.mark.usefixtures("left")
@pytest.mark.parametrize("which", ["gaps", "unlike layouts", "expanded", "float64", "nothing weighs", "two added", "nine"])
def test_weighted_sum_leaves_to_the_reference(which: str) -> None:
    x = drawn(6, 8)
    history, weights = {
        "gaps": ([x[:, ::2]] * 2, [2.0, 1.0]),
        "unlike layouts": ([x[:, :6], x[:, :6].mT], [2.0, 1.0]),
        "expanded": ([x[:1].expand(6, 8)] * 2, [2.0, 1.0]),
        "float64": ([x.double()] * 2, [2.0, 1.0]),
        "nothing weighs": ([x], [0.0]),
        "two added": ([x, x], [1.0, 1.0]),
        "nine": ([x] * 9, [0.5] * 9),
    }[which]
    assert torch.equal(kernels.weighted_sum(history, weights), reference.weighted_sum(history, weights))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("shape", [(1, 5), (3, 40, 61), (2, 9000)])
def test_change_sums(shape: tuple[int, ...], norm: str, dtype: torch.dtype) -> None:
    now, before = drawn(*shape, dtype=dtype), drawn(*shape, dtype=dtype, seed=1)
    made, wanted = kernels.change_sums(now, before, norm), reference.change_sums(now, before, norm)
    cut = 4 * torch.finfo(dtype).eps if INTERPRETED and dtype is torch.bfloat16 else 1e-5
    assert torch.allclose(made, wanted, rtol=cut)
    assert all(torch.equal(kernels.change_sums(now, before, norm), made) for _ in range(AGAIN))


def test_change_sums_shows_what_is_not_a_number() -> None:
    now, before = drawn(3, 50), drawn(3, 50, seed=1)
    now[1, 7] = float("nan")
    assert kernels.relative_change(now, before).isnan().tolist() == [False, True, False]
    assert kernels.relative_change(before, before).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.usefixtures("left")
def test_change_sums_leaves_gaps_to_the_reference() -> None:
    now, before = drawn(3, 8)[:, ::2], drawn(3, 8, seed=1)[:, ::2]
    assert torch.equal(kernels.change_sums(now, before), reference.change_sums(now, before))


WIDTHS = (1, 7, 64, 72, 512, 1536)


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64])
@pytest.mark.parametrize("width", WIDTHS)
def test_take_rows(width: int, dtype: torch.dtype) -> None:
    x, positions, wider = drawn(90, width, dtype=dtype), drawn(90, 3), drawn(90, width + 5, dtype=dtype)[:, :width]
    index = chosen(3, 20, 90)
    taken = kernels.take_rows((x, positions, wider), index)
    assert all(map(torch.equal, taken, reference.take_rows((x, positions, wider), index)))
    assert [t.shape for t in taken] == [(3, 20, width), (3, 20, 3), (3, 20, width)]
    assert all(torch.equal(kernels.take_rows((x,), index)[0], taken[0]) for _ in range(AGAIN))


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64])
@pytest.mark.parametrize("width", WIDTHS)
def test_fill_rows(width: int, dtype: torch.dtype) -> None:
    older, fresh, index = drawn(90, width, dtype=dtype), drawn(60, width, dtype=dtype, seed=1), chosen(3, 20, 90)
    inverse = kernels.inverse_of(index, 90)
    wanted_kept = older.clone()
    wanted = reference.fill_rows(fresh, inverse, wanted_kept)
    for _ in range(AGAIN):
        kept = older.clone()
        out = kernels.fill_rows(fresh, inverse, kept)
        assert torch.equal(out, wanted)
        assert torch.equal(kept, wanted_kept)
        assert out.data_ptr() != kept.data_ptr()


@pytest.mark.parametrize("kind", HALF)
def test_fill_rows_of_another_kind_and_with_gaps(kind: torch.dtype) -> None:
    older, fresh = drawn(30, 24, dtype=kind), drawn(10, 30, seed=1)[:, :24]
    inverse = kernels.inverse_of(chosen(1, 10, 30), 30)
    inverse[3] = 4  # a row that stands in two places
    a, b = older.clone(), older.clone()
    assert torch.equal(kernels.fill_rows(fresh, inverse, a), reference.fill_rows(fresh, inverse, b))
    assert torch.equal(a, b)


@pytest.mark.usefixtures("left")
def test_rows_that_are_no_rows_in_memory_are_left_to_the_reference() -> None:
    x, index = drawn(24, 30).mT, chosen(1, 10, 30)
    assert torch.equal(kernels.take_rows((x,), index)[0], reference.take_rows((x,), index)[0])
    a, b = drawn(24, 30).mT, drawn(24, 30).mT
    inverse = kernels.inverse_of(index, 30)
    assert torch.equal(kernels.fill_rows(drawn(10, 24), inverse, a), reference.fill_rows(drawn(10, 24), inverse, b))
    assert torch.equal(a, b)


SIZES = [(3, 30, 10, 70), (2, 100, 150, 64), (1, 1, 1, 5), (2, 12, 13, LONG + 100), (1, 70, 3, 1536)]
OF_FEATURES = (torch.float16, torch.float32) if INTERPRETED else DTYPES  # the interpreter multiplies bfloat16 as integers


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("dtype", OF_FEATURES)
@pytest.mark.parametrize("size", SIZES)
def test_most_alike(size: tuple[int, int, int, int], dtype: torch.dtype) -> None:
    groups, s, d, width = size
    src, dst = drawn(groups, s, width, dtype=dtype), drawn(groups, d, width, dtype=dtype, seed=1)
    score, match = kernels.most_alike(src, dst)
    a, b = (x.double() / x.double().norm(dim=-1, keepdim=True) for x in (src, dst))
    truth = a @ b.mT
    assert (score.dtype, match.dtype) == (torch.float32, torch.int64)
    assert torch.allclose(score.double(), truth.max(-1).values, atol=2e-5)
    assert torch.allclose(truth.gather(-1, match[..., None])[..., 0], truth.max(-1).values, atol=2e-5)
    assert torch.allclose(score, reference.most_alike(src, dst)[0], atol=2e-5)
    for _ in range(AGAIN if width < LONG else 2):
        again = kernels.most_alike(src, dst)
        assert torch.equal(again[0], score)
        assert torch.equal(again[1], match)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("dtype", OF_FEATURES)
@pytest.mark.parametrize("width", [16, LONG + 100])
def test_most_alike_names_the_lowest_and_zeros_resemble_nothing(width: int, dtype: torch.dtype) -> None:
    dst = drawn(2, 200, width, dtype=dtype)
    dst[:, 150] = dst[:, 40]  # in another tile
    dst[:, 41] = dst[:, 40]
    src = torch.stack([dst[:, 150], dst[:, 7] * 0], 1)
    score, match = kernels.most_alike(src, dst)
    assert match[:, 0].tolist() == [40, 40]
    assert torch.allclose(score, torch.tensor([1.0, 0.0], device=DEVICE).expand(2, 2), atol=1e-5)


def test_most_alike_answers_what_is_not_a_number_with_some_row() -> None:
    src, dst = drawn(1, 20, 16), drawn(1, 10, 16, seed=1)
    dst[0, 3] = src[0, 5] = float("nan")
    match = kernels.most_alike(src, dst)[1]
    assert set(match.flatten().tolist()) <= set(range(10))


@pytest.mark.usefixtures("left")
def test_most_alike_leaves_to_the_reference() -> None:
    src, dst = drawn(1, 20, 16).double(), drawn(1, 10, 16, seed=1).double()
    assert torch.equal(kernels.most_alike(src, dst)[0], reference.most_alike(src, dst)[0])
    turned = drawn(1, 16, 20).mT
    assert torch.equal(kernels.most_alike(turned, dst.float())[0], reference.most_alike(turned, dst.float())[0])
