"""Law 11: reported bytes are held bytes, and none after the run; a new shape or dtype drops what is kept."""

from __future__ import annotations

import copy
import weakref
from contextlib import nullcontext
from typing import Any

import torch
from tests.holdings import kept, reach
from tests.laws.table import Case, Subject, strips

import omnicache
from omnicache.plan import Plan
from omnicache.policy import Entry
from omnicache.runtime.step import Step
from omnicache.runtime.store import held_bytes

LAW = 11


def remembers(plan: Plan) -> bool:
    """Whether anything of a plan is kept from step to step."""
    return any(p.how.remembers for p in plan.policies)


def test_reported_bytes_are_held_bytes(case: Case, subject: Subject) -> None:
    most, watched = [], []
    with omnicache.cache(subject.pipe, subject.row.plan(subject.pipe.total)) as run:
        session = run.sessions[0]

        def look(*_: Any) -> None:
            tensors = reach(kept(run), torch.Tensor)
            held = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
            assert session.bytes() == sum(held.values())
            most.append(session.bytes())
            watched.extend(weakref.ref(t) for t in tensors)

        subject.sample(watch=look)
        assert session.bytes() == 0
        # The peak is taken at steps that computed something: the one number a sample that an accumulator gathers is not in it.
        assert 0.99 * max(most) <= run.cache_bytes <= max(most)
        assert (max(most) > 0) == remembers(subject.row.plan(subject.pipe.total))
        told = {id(v) for r in run.trace.records for v in r.signals.values()}  # a number a sample and step
        assert not [t.shape for t in (ref() for ref in watched) if t is not None and id(t) not in told]


def test_shared_storage_is_counted_once_and_a_view_as_all_it_holds() -> None:
    whole = torch.zeros(10, 4)
    assert held_bytes([whole, whole], {"a": whole[:2]}, Entry(Step(0), (whole.T,))) == 160
    assert held_bytes(whole[:1], torch.zeros(3)) == 172
    assert held_bytes(torch.zeros(()).expand(100, 100)) == 4


def test_a_new_shape_or_dtype_drops_what_is_kept(case: Case, subject: Subject) -> None:
    """At step 2 the batch grows, at step 4 the weights become double: both steps are computed, and like by an uncached copy."""
    plain, wide = copy.deepcopy(subject.model), copy.deepcopy(subject.model).double()

    def change(step: int, x: torch.Tensor) -> torch.Tensor | None:
        if step == 1:
            return torch.cat([x, x.flip(1)])
        if step == 3:
            subject.model.double()
            return x.double()
        return None

    @torch.no_grad()
    def compare(step: int, arguments: dict[str, Any], out: torch.Tensor) -> None:
        if step in (2, 4):
            fresh = plain if step == 2 else wide
            with omnicache.cache(fresh, plan) if not whole else nullcontext():  # ToMeSD is no other at a first step
                assert torch.equal(out, fresh(**arguments).sample)

    plan = subject.row.plan(subject.pipe.total)
    whole = not plan.policies or remembers(plan)
    with omnicache.cache(subject.pipe, plan) as run:
        subject.sample(watch=compare, after=change)
    for strip in strips(run):
        assert strip[0] == strip[2] == strip[4] == ("#" if whole else "o")
