"""Runs that take their steps together."""

import threading

import pytest

from omnicache.calibrate.steps.together import ask, together
from omnicache.errors import OmniCacheError


def counting(name, steps, seen, fails_at=None):
    def job():
        for step in range(steps):
            if step == fails_at:
                raise ValueError(f"{name} failed")
            seen.append((name, step, ask((name, step))))

    return job


def test_every_job_gets_the_answer_to_all_of_them_in_their_order():
    seen = []
    together([counting(n, 2, seen) for n in "abc"], lambda values: "".join(f"{n}{s}" for n, s in values))
    assert seen == [(n, s, f"a{s}b{s}c{s}") for s in range(2) for n in "abc"]


def test_only_one_of_them_runs_at_a_time():
    inside, most = 0, []

    def job():
        nonlocal inside
        for _ in range(20):
            inside += 1
            most.append(inside)
            inside -= 1
            ask(None)

    together([job] * 4, lambda values: None)
    assert set(most) == {1} and len(most) == 80


def test_an_error_in_one_of_them_is_raised_and_ends_the_others():
    before, seen = threading.active_count(), []
    with pytest.raises(ValueError, match="b failed"):
        together([counting(n, 5, seen, fails_at=3 if n == "b" else None) for n in "abc"], len)
    assert threading.active_count() == before
    assert max(step for _, step, _ in seen) == 2


def test_an_error_of_the_answer_is_raised_and_ends_them():
    before = threading.active_count()

    def answer(values):
        raise KeyError("no answer")

    with pytest.raises(KeyError, match="no answer"):
        together([counting(n, 5, []) for n in "ab"], answer)
    assert threading.active_count() == before


def test_jobs_of_different_lengths_are_refused():
    before = threading.active_count()
    with pytest.raises(OmniCacheError, match="different numbers of steps"):
        together([counting("a", 3, []), counting("b", 4, [])], len)
    assert threading.active_count() == before
