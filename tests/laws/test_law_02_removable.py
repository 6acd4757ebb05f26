"""Law 2: detaching restores outputs to the bit, and everything that can be looked at; also after an exception in the middle."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from tests.laws.table import Case, Subject

import omnicache

LAW = 2


def looks(subject: Subject) -> Any:
    """What a user could see of the model and its sampler."""
    modules = dict(subject.model.named_modules())
    return (
        list(subject.model.state_dict()),
        {name: str(inspect.signature(m.forward)) for name, m in modules.items()},
        {name: {k: id(v) for k, v in m.__dict__.items()} for name, m in modules.items()},
        [id(getattr(type(m), "forward", None)) for m in modules.values()],
        {name: vars(subject.pipe.scheduler).get(name) for name in ("step", "set_timesteps")},
        list(vars(subject.target)),
    )


def test_nothing_is_left(case: Case, subject: Subject) -> None:
    plain = subject.draw()
    before = looks(subject)
    with omnicache.cache(subject.target, subject.plan()) as run:
        subject.draw()
        assert looks(subject)[:2] == before[:2]
    assert looks(subject) == before
    assert torch.equal(subject.draw(), plain)
    assert run.sessions[0].bytes() == 0


class Broken(Exception):
    pass


def test_nothing_is_left_after_an_exception(case: Case, subject: Subject) -> None:
    """A block raises in the third step that computes it."""
    plain, plan, calls = subject.draw(), subject.plan(), []
    block = subject.pipe.kind.blocks(subject.model)[-1]

    def bomb(*_: Any) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise Broken

    before = looks(subject)
    run = omnicache.enable(subject.target, plan)
    handle = block.register_forward_pre_hook(bomb)
    with pytest.raises(Broken):
        subject.draw()
    handle.remove()
    assert run.sessions[0].bytes() == 0
    still_enabled = subject.draw()
    omnicache.disable(subject.target)
    assert looks(subject) == before
    assert torch.equal(subject.draw(), plain)
    with omnicache.cache(subject.target, plan):
        assert torch.equal(subject.draw(), still_enabled)  # nothing of the broken run was in it
