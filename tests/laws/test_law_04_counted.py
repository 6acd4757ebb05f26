"""Law 4: calls of real modules are what the schedule and the trace say."""

from __future__ import annotations

from collections import Counter
from typing import Any

from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from tests.holdings import kept, reach
from tests.laws.table import Case, Subject, coarse, expected, strips
from torch import nn

import omnicache
from omnicache.policy import Entry

LAW = 4


def governed(subject: Subject) -> list[nn.Module]:
    """The modules whose calls the method saves, found without the library."""
    if subject.row.where == "rows":
        return [m for m in subject.model.modules() if isinstance(m, Attention)]
    if subject.row.where == "module":
        return [m for m in subject.model.modules() if isinstance(m, (Attention, FeedForward))]
    return subject.pipe.kind.blocks(subject.model) if subject.row.where in ("stack", "deep") else []


def test_calls_are_what_the_trace_says(case: Case, subject: Subject) -> None:
    calls: Counter[nn.Module] = Counter()

    def count(module: nn.Module, *_: Any) -> None:
        calls[module] += 1

    for module in subject.model.modules():
        module.register_forward_hook(count)
    plan = subject.plan()
    with omnicache.cache(subject.target, plan) as run:
        subject.draw()

    branches = 1 if case.guidance == "batched" else 2
    records = run.trace.records
    assert len(strips(run)) == branches
    assert {len(s) for s in strips(run)} == {subject.total}
    rehearsals = sum(r.rehearsals for r in records)
    passed = sum(r.mark != "." for r in records) if subject.row.where == "denoiser" else len(records)
    answered = sum(not r.computed and not r.partial for r in records) if subject.row.answers else 0
    assert (answered > 0) == (subject.row.answers and case.guidance != "batched")
    assert calls[subject.model] == passed + rehearsals + sum(r.redone for r in records) - answered

    wanted = subject.strip(plan)
    if wanted is not None:
        assert {coarse(s) for s in strips(run)} == expected(case, wanted)

    if (fix := next((p.fix for p in plan.policies if p.fix is not None and p.fix.rehearses), None)) is not None:
        # Rehearsed: the last computed step before a reuse that the corrector repairs, unless it is the very first.
        due = [i for i in range(1, subject.total - 1) if wanted[i] == "#" and wanted[i + 1] == "."]
        due = [i for i in due if any((g or 0) > 0 for g in fix.gamma[i + 1 : i + 2 + (wanted[i + 2 : i + 3] == ".")])]
        assert rehearsals == branches * len(due)

    found = governed(subject)
    full = sum(r.mark == "#" for r in records)
    checks = sum(r.checked or r.redone for r in records)
    checked = set(subject.pipe.kind.blocks(subject.model)[-1].modules()) if subject.pipe.kind.family != "unet" else set()
    for module in found:
        if case.row.startswith("toca") and isinstance(module, FeedForward):
            assert full <= calls[module] <= len(records)  # the sum over them is told below
        elif subject.row.where == "rows":
            assert calls[module] == len(records)
        else:
            assert calls[module] == full + checks * (module in checked)
    if subject.row.where == "module" or (subject.row.where == "stack" and subject.pipe.kind.family != "unet"):
        told = sum(r.computed + r.partial for r in records)
        assert told + checks * len(checked.intersection(found)) == sum(calls[m] for m in found)
        assert all(r.computed + r.partial + r.reused == len(found) for r in records)


def test_only_computed_values_are_learned(case: Case, subject: Subject) -> None:
    """Whatever is kept at a step was computed at one that the trace shows as computed, or in part where policies have schedules of
    their own; an estimate never becomes history."""
    found = []
    plan = subject.row.plan(subject.pipe.total)
    marks = "#o" if len(plan.triggers) > 1 or any(t.by_site for t in plan.triggers) else "#"

    def look(step: int, *_: Any) -> None:
        for state in kept(run)[0][0]:
            learned = {(e.step.branch, e.step.index) for e in reach(state, Entry)}
            done = {(r.step.branch, r.step.index) for r in run.trace.records if r.mark in marks}
            assert learned <= done
            found.extend(learned)

    with omnicache.cache(subject.pipe, plan) as run:
        subject.sample(watch=look)
    assert found or not any(p.how.remembers for p in plan.policies)
