"""Law 8: on features that do not change, every method returns the exact output up to rounding."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.laws.table import Case, Subject, strips
from tests.tiny import deaf

import omnicache
from omnicache.granularity import MLP
from omnicache.policy import Policy
from omnicache.triggers import Every

LAW = 8


def test_what_does_not_change_is_kept_exactly(case: Case, subject: Subject) -> None:
    """The model ignores the time and is shown one and the same input, so each of its outputs must be the first one."""
    if subject.row.still is None:
        pytest.skip("it changes the output on purpose")
    deaf(subject.model)
    outs: dict[str, list[torch.Tensor]] = {}

    def watch(step: int, arguments: dict[str, Any], out: torch.Tensor) -> None:
        outs.setdefault(repr([v.shape for v in arguments.values()]) + str(_condition(arguments)), []).append(out.clone())

    plan = subject.row.plan(subject.pipe.total, subject.row.still)
    if subject.row.mixes:
        plan = replace(plan, policies=tuple(replace(p, where=MLP()) for p in plan.policies[:1]))
    if subject.row.bent:
        plan = replace(plan, policies=(*(p for p in plan.policies if p.how.copies), Policy(Every(3), MLP())))
    with omnicache.cache(subject.pipe, plan) as run:
        subject.sample(still=True, watch=watch)
    assert len(outs) == (1 if case.guidance == "batched" else 2)
    for first, *others in outs.values():
        assert len(others) == subject.total - 1
        for out in others:
            assert (out - first).abs().max() <= 2e-5 * first.abs().max()
    assert case.row in ("none", "fewer-steps") or any(set(s) - {"#"} for s in strips(run))


def _condition(arguments: dict[str, Any]) -> float:
    return float(next(v for k, v in arguments.items() if k in ("class_labels", "encoder_hidden_states")).double().sum())
