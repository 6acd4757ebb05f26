"""Law 6: an image alone equals the same image in a batch, and the order of cond and uncond does not matter, where decisions
agree."""

from __future__ import annotations

import pytest
import torch
from tests.laws.table import Case, Subject, strips
from tests.tiny import STEPS, Pipe, sample

import omnicache

LAW = 6


def near(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool((a - b).abs().max() <= 1e-5 * b.abs().max())


def test_an_image_alone_equals_itself_in_a_batch(case: Case, subject: Subject) -> None:
    subject.model.double()  # the law is about decisions and rows, not about the rounding of a batched product
    with omnicache.cache(subject.pipe, subject.row.plan(subject.pipe.total)) as run:
        alone, seen = subject.sample(seeds=(1,), labels=(1,)), strips(run)
        for companion in (2, 3, 4):
            both = subject.sample(seeds=(1, companion), labels=(1, companion))
            assert subject.row.strip is None or strips(run) == seen
            if strips(run) == seen:
                assert near(both[:1], alone)
                turned = subject.sample(seeds=(companion, 1), labels=(companion, 1))
                assert near(turned.flip(0), both)
                return
    pytest.skip("this method decided otherwise for every companion")


def test_the_order_of_cond_and_uncond_does_not_matter(case: Case, subject: Subject) -> None:
    subject.model.double()
    apart = {"aligned": False} if subject.row.mixes else {}  # the second of two calls drops what the first has chosen
    with omnicache.cache(subject.pipe, subject.row.plan(subject.pipe.total, apart)) as run:
        for seed in (1, 2, 3):
            one, seen = subject.sample(seeds=(seed,)), strips(run)
            other = subject.sample(seeds=(seed,), swap=True)
            if case.guidance != "batched" and subject.row.answers and set("".join(strips(run))) == {"#"}:
                pytest.skip("the call that runs must come first")
            if case.guidance == "batched" or subject.row.strip is not None:
                assert strips(run) == seen  # two calls share the decision of the first, so its features may matter
            if strips(run) == seen:
                assert near(other, one)
                break
        else:
            pytest.skip("the two calls' features lead to other decisions")
        if subject.row.strip is not None:  # a call is known by its condition, also when it comes second where it was first
            turning = subject.sample(seeds=(seed,), turn=True)
            assert near(turning, one)
            assert strips(run) == seen


@pytest.mark.parametrize("kind", ["dit", "sd3", "unet"])
@pytest.mark.parametrize("solver", STEPS)
def test_a_call_that_is_not_known_takes_the_place_that_is_left(kind: str, solver: str) -> None:
    """One condition is the same tensor throughout and the other is made anew: they must not be taken for one another."""
    pipe = Pipe(kind, solver)
    pipe.model.double()
    with omnicache.cache(pipe, "fora", interval=3) as run:
        one = sample(pipe, "calls", anew=True)
        assert near(sample(pipe, "calls", anew=True, turn=True), one)
    assert len(strips(run)) == 2
