"""Law 5: threads that share the weights do not see each other; nor do two enabled pipelines of one class."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from tests.laws.table import Case, Subject, strips
from tests.tiny import Pipe, sample, scheduler

import omnicache

LAW = 5

Outcome = tuple[torch.Tensor, list[str]]


def test_threads_do_not_see_each_other(case: Case, subject: Subject) -> None:
    """One runs on the pipeline's scheduler, the other on one of its own; step by step in turn, as unluckily as can be."""
    own = scheduler(subject.pipe.kind.flow, case.solver)

    def ours(after: Callable[..., None] | None = None) -> Outcome:
        return subject.sample(seeds=(1,), labels=(1,), after=after), strips(run)

    def theirs(after: Callable[..., None] | None = None) -> Outcome:
        return subject.sample(seeds=(2,), labels=(3,), own=own, after=after), strips(run)

    with omnicache.cache(subject.target, subject.row.plan(subject.pipe.total)) as run:
        alone = [_in_a_thread(ours), _in_a_thread(theirs)]
        for (latents, strip), (wanted, seen) in zip(_in_turn(ours, theirs), alone, strict=True):
            assert torch.equal(latents, wanted)
            assert strip == seen
    assert run.sessions[0].bytes() == 0


def _in_a_thread(job: Callable[..., Outcome]) -> Outcome:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(job).result()


def _in_turn(*jobs: Callable[..., Outcome]) -> list[Outcome]:
    """All jobs at once, each waiting for the others after every step until one of them is done."""
    barrier = threading.Barrier(len(jobs))

    def meet(*_: Any) -> None:
        with contextlib.suppress(threading.BrokenBarrierError):  # the others have finished
            barrier.wait(timeout=20)

    def run(job: Callable[..., Outcome]) -> Outcome:
        meet()
        try:
            return job(meet)
        finally:
            barrier.abort()

    with ThreadPoolExecutor(len(jobs)) as pool:
        return [f.result() for f in [pool.submit(run, job) for job in jobs]]


@pytest.mark.once
def test_pipelines_of_one_class_do_not_see_each_other(case: Case, subject: Subject) -> None:
    other = Pipe(case.kind, case.solver)
    plan = subject.row.plan(subject.pipe.total)
    plain = sample(other, case.guidance)
    run = omnicache.enable(subject.pipe, plan)
    assert torch.equal(sample(other, case.guidance), plain)  # of the same class, and never enabled
    with omnicache.cache(other, plan) as others:
        assert torch.equal(cached := subject.sample(), sample(other, case.guidance))
        assert strips(run) == strips(others)
        omnicache.disable(subject.pipe)
        assert torch.equal(sample(other, case.guidance), cached)
        assert torch.equal(subject.sample(), plain)
