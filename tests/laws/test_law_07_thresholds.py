"""Law 7: -inf (or its kin) computes everything, +inf only what is forced, more is never less; NaN computes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.laws.table import ROWS, Case, Subject, coarse, expected, full, strips
from tests.tiny import Pipe, sample

import omnicache
from omnicache.policy import Decision, Moment
from omnicache.runtime.step import Step
from omnicache.signals import LatentChange
from omnicache.triggers import Accumulate, First, Verify

LAW = 7


def test_the_ends_of_the_scale(case: Case, subject: Subject) -> None:
    total = subject.length(subject.row.least.get("ratio", 1.0) if case.row == "fewer-steps" else 1.0)
    with omnicache.cache(subject.target, subject.row.plan(subject.pipe.total, subject.row.least)) as run:
        subject.draw()
        assert {coarse(s) for s in strips(run)} == expected(case, subject.row.forced(total))
    with omnicache.cache(subject.target, subject.row.off(subject.pipe.total)) as run:
        subject.draw()
        assert set(strips(run)) == {full(subject.pipe.total)}


@pytest.mark.parametrize("kind", ROWS["teacache"].kinds)
@pytest.mark.parametrize("guidance", ["batched", "calls"])
def test_a_signal_that_is_not_a_number_computes(kind: str, guidance: str) -> None:
    """From one step on the latents are NaN; only what is forced was computed before."""
    pipe = Pipe(kind)
    strip = []

    def spoil(step: int, x: torch.Tensor) -> torch.Tensor | None:
        strip[:] = strips(run)
        return torch.full_like(x, math.nan) if step == 5 else None

    with omnicache.cache(pipe, "teacache", threshold=math.inf) as run, pytest.raises(FloatingPointError):
        sample(pipe, guidance, after=spoil)
    assert set(strip) == {"#" + "." * 5 + "#" * (pipe.total - 6)}


def test_a_threshold_of_zero_recomputes_every_draft_that_errs() -> None:
    pipe = Pipe("sd3")
    plain = sample(pipe)
    with omnicache.cache(pipe, "speca", threshold=0.0, floor=0.0, redo=True) as run:
        assert torch.equal(sample(pipe), plain)
    assert strips(run) == [full(pipe.total)]
    assert sum(r.redone for r in run.trace.records) == pipe.total - 3


def decisions(trigger: Any, changes: list[Any]) -> str:
    """What a trigger says when step ``i + 1`` shows ``changes[i]``; the first step is computed."""
    state, last, reused, strip = trigger.init(), None, 0, ""
    for i, change in enumerate([None, *changes]):
        moment = Moment(Step(i, len(changes) + 1), last, reused, {SIGNAL: change})
        decision, state = trigger.decide(state, moment)
        decision = Decision.COMPUTE if last is None else decision
        state = trigger.settle(state, moment, decision)
        last, reused = (moment.step, 0) if decision is Decision.COMPUTE else (last, reused + 1)
        strip += "#" if decision is Decision.COMPUTE else "."
    return strip


SIGNAL = LatentChange()
changes = st.lists(st.lists(st.floats(0, 10), min_size=2, max_size=2).map(torch.tensor), min_size=1, max_size=30)
thresholds = st.floats(-1, 30)


@given(changes, thresholds, thresholds, st.sampled_from([(1.0, 0.0), (2.0, 0.5, 0.1)]))
def test_a_larger_threshold_never_computes_more(
    changes: list[torch.Tensor], one: float, other: float, coefficients: tuple[float, ...]
) -> None:
    strict, loose = (decisions(Accumulate(SIGNAL, t, coefficients), changes) for t in sorted((one, other)))
    assert loose.count("#") <= strict.count("#")


@given(changes)
def test_accumulators_at_the_ends(changes: list[torch.Tensor]) -> None:
    assert decisions(Accumulate(SIGNAL, -math.inf), changes) == "#" * (len(changes) + 1)
    assert decisions(Accumulate(SIGNAL, math.inf), changes) == "#" + "." * len(changes)


@pytest.mark.parametrize("bad", [torch.tensor([0.1, math.nan]), None])
@pytest.mark.parametrize("wrap", [lambda t: t, lambda t: First(1) | t, lambda t: t & t])
def test_what_is_unknown_computes(bad: Any, wrap: Any) -> None:
    quiet = torch.tensor([0.0, 0.0])
    assert decisions(wrap(Accumulate(SIGNAL, math.inf)), [quiet, bad, quiet]) == "#.#."


def test_the_worst_sample_decides() -> None:
    steps = [torch.tensor([0.1, 0.0]), torch.tensor([0.1, 0.5])]
    assert decisions(Accumulate(SIGNAL, 0.5), steps) == "#.#"


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.99))
def test_a_draft_is_accepted_up_to_its_limit(error: float, threshold: float, progress: float) -> None:
    verify = Verify(threshold=threshold)
    moment = Moment(Step(int(progress * 100), 100))
    assert verify.observe(None, moment, error)[0] == (error <= verify.limit(moment.step.progress))
    assert not verify.observe(None, moment, math.nan)[0]


def test_one_bad_guidance_pass_is_enough() -> None:
    """The branches of a step are told one after the other; a good one must not make up for a bad one."""
    verify, moment = Verify(), Moment(Step(5, 10), Step(2, 10), 2)
    for errors in ((9.0, 0.0), (0.0, 9.0)):
        state = None
        for error in errors:
            _, state = verify.observe(state, moment, error)
        assert verify.decide(state, moment)[0] is Decision.COMPUTE
