"""AdaCache (arXiv 2411.02397): the tests of its reference."""

import pytest
import torch

import omnicache
from omnicache.errors import OmniCacheError
from omnicache.granularity import MLP, Attention
from omnicache.methods.adacache import BOOKS, adacache
from omnicache.models.latent import Latent
from omnicache.policy import Moment, Policy
from omnicache.predictors import Hold
from omnicache.runtime.seen import RETURNED, STEP
from omnicache.runtime.step import Step
from omnicache.signals import FrameMotion, LatentChange
from omnicache.triggers import Codebook

from .tiny import Curves, Pipe, dit, full_steps, latte, strip, text_unet

CHANGE, MOVED = LatentChange(), LatentChange("l2")


def computed(book: str, total: int, change: float | list[float | None]) -> list[int]:
    """What is computed, counted from 1 as the release does, if what is watched changes by so much between computed steps."""
    when = adacache(book=book, motion=False).policies[0].when
    signal = when.signals[0]
    changes = change if isinstance(change, list) else [None, None, *[change] * (total - 2)]
    return [i + 1 for i in full_steps(strip(when, total, signals={signal: changes}))]


def test_schedules_of_a_feature_that_does_not_change():
    assert computed("long", 100, 0.0) == [1, 2, 14, 26, 38, 50, 62, 74, 86, 98, 99, 100]
    assert computed("fast", 30, 0.0) == [1, 2, 8, 14, 20, 26, 29, 30]
    assert len(computed("slow", 30, 0.0)) == 12


@pytest.mark.parametrize("book", BOOKS)
def test_above_all_limits_the_last_entry_counts(book):
    last, total = BOOKS[book][1][-1], 40
    ends = [1, 2, total - 1, total]
    assert computed(book, total, 1e9) == sorted({*ends, *range(2, total - 1, last)})


def test_the_change_is_divided_by_the_steps_that_it_took():
    when = Codebook(CHANGE, (0.1,), (4, 1))
    # Computed at 0, 1 (nothing to compare with yet), and from then on by what is told of the last two computed steps.
    told = [None, None, 0.09, 0.09, 0.09, 0.09, 0.36, 0.36, 0.36, 0.36, 0.6, 0.6]
    assert full_steps(strip(when, 12, signals={CHANGE: told})) == [0, 1, 5, 9, 10, 11]


def test_motion_multiplies():
    plain, moving = Codebook(CHANGE, (0.1,), (5, 1)), Codebook(CHANGE, (0.1,), (5, 1), motion=MOVED, window=(0.0, 1.0))
    told = [None, None, *[0.05] * 10]
    still, lively = [None, *[0.385] * 11], [None, *[0.77] * 11]  # (m / 0.385) ** 8 is 1, and 256
    assert full_steps(strip(plain, 12, signals={CHANGE: told})) == [0, 1, 6, 11]
    assert full_steps(strip(moving, 12, signals={CHANGE: told, MOVED: still})) == [0, 1, 6, 11]
    assert full_steps(strip(moving, 12, signals={CHANGE: told, MOVED: lively})) == list(range(12))


def test_outside_its_window_only_a_change_of_motion_counts():
    late = Codebook(CHANGE, (0.1,), (5, 1), motion=MOVED, window=(0.9, 1.0))
    told = [None, None, *[0.05] * 10]
    assert full_steps(strip(late, 12, signals={CHANGE: told, MOVED: [None, *[0.77] * 11]})) == [0, 1, 6, 11]


@pytest.mark.parametrize("book", BOOKS)
@pytest.mark.parametrize(("index", "inside"), [(3, False), (4, True), (25, True), (26, False)])
def test_motion_counts_between_the_released_steps(book, index, inside):
    """From step 4 to 26 of 30, or from 10 to 90 of 100: only there frames that stand still make a wait long."""
    total = 100 if book == "long" else 30
    index = {3: 9, 4: 10, 25: 89, 26: 90}[index] if book == "long" else index
    when = adacache(book=book).policies[0].when
    table = when.b
    change, motion = table.signals
    fast = {change: torch.tensor([1e3]), motion: torch.tensor([0.0])}
    state = (Step(index - 2, total), Step(index - 3, total), 1, torch.tensor([0.0]))
    wait = table.decide(state, Moment(Step(index, total), Step(index - 1, total), signals=fast))[1][2]
    assert wait == (BOOKS[book][1][0] if inside else BOOKS[book][1][-1])


def test_motion_that_changes_shortens_the_wait():
    """Outside of the window a rate of 0.05 is grown by 10 |m' - m| / gap: by 1 + 10 * 0.3 where m rises by 0.3 in a step."""
    when = Codebook(CHANGE, (0.1, 0.19, 0.21), (5, 4, 3, 1), motion=MOVED, window=(1.0, 1.0))
    rise = [0.385 * m ** (1 / 8) for m in (1.0, 1.3)]
    told = [None, None, *[0.05] * 10]
    assert full_steps(strip(when, 12, signals={CHANGE: told, MOVED: [None, rise[0], rise[0], *[rise[1]] * 9]})) == [0, 1, 6, 11]
    moving = [None, rise[0], *[rise[1]] * 10]
    assert full_steps(strip(when, 12, signals={CHANGE: told, MOVED: moving})) == [0, 1, 4, 9]


def test_motion_of_still_frames_is_zero_and_of_noise_the_root_of_a_half():
    step = Step(0, latent=Latent(1, 16, 8, 8))
    frame, noise = (torch.randn(n, 64, 32, generator=torch.Generator().manual_seed(n)) for n in (1, 16))
    for film, moves in ((frame.expand(16, 64, 32), 0.0), (noise, 0.7071)):
        seen = FrameMotion(Attention()).probe(None, {RETURNED: film, STEP: step})
        assert float(FrameMotion(Attention()).change(FrameMotion(Attention()).sums(seen, seen))) == pytest.approx(moves, abs=0.01)
    assert FrameMotion(Attention()).probe(None, {RETURNED: frame, STEP: Step(0, latent=Latent(1, 1, 8, 8))}) is None  # a picture


def test_one_summed_increment_is_what_every_block_keeping_its_own_comes_to():
    pipe = Pipe(Curves(lambda t: t / 1000))  # gates that do not change with time
    when = adacache(motion=False).policies[0].when
    summed, parts = adacache(motion=False), Policy(when, Attention() | MLP(), Hold())
    with omnicache.cache(pipe, summed) as one:
        a = pipe(num_inference_steps=20, dtype=torch.float64)
    with omnicache.cache(pipe, parts) as many:
        b = pipe(num_inference_steps=20, dtype=torch.float64)
    assert one.computed == many.computed and "." in one.computed
    torch.testing.assert_close(a, b)


@pytest.mark.parametrize("guidance", ["batched", "calls"])
@pytest.mark.parametrize("model", [dit, latte, text_unet])
def test_it_runs_on_pictures_films_and_u_nets(model, guidance):
    shape = {"shape": (4, 3, 8, 8)} if model is latte else {}
    pipe = Pipe(model())
    with omnicache.cache(pipe, "adacache", scale=1e-4) as run:
        pipe(guidance=guidance, num_inference_steps=14, **shape)
    assert {run.trace.strip(b) for b in run.trace.branches()} == {"##.....#....##"}
    with omnicache.cache(pipe, "adacache", scale=1e6, book="slow") as run:
        pipe(guidance=guidance, **shape)
    assert set(run.computed) == {"#"}


def test_a_codebook_that_does_not_fit_is_refused():
    with pytest.raises(OmniCacheError, match="one more for what is above"):
        Codebook(CHANGE, (0.1, 0.2), (2, 1))
