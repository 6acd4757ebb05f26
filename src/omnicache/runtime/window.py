"""Which computed values will still be used: a value that no later step asks for is not kept.

Triggers that see no signals decide by the clock alone, so all of their decisions can be worked out when a run begins, and with
them which entries of a history each estimate will take. What watches the run cannot be foreseen: there everything is kept, up to
the last step.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from omnicache.policy import Decision, History, Policy, Predictor, Trigger
from omnicache.runtime.step import Step

if TYPE_CHECKING:
    from omnicache.runtime.decisions import TriggerState

FILLING = [Step(i, time=-float(i), sigma=-float(i)) for i in range(16)]
"""Steps after which a history is taken to have its full length, where the real ones are not known."""
NOTHING = (torch.zeros(1),)
"""What predictors are given to find out which entries they keep."""


class Window:
    """What is to come in a run, from one of its steps on.

    Args:
        policies: the plan's.
        how: the predictor of each policy, by the policy's id.
        steps: the steps to come; empty where nobody knows how many.
        decided: what each trigger will say at them, where the clock tells.
        computed: the steps that each trigger had computed before, oldest first.
    """

    def __init__(
        self,
        policies: Iterable[Policy],
        how: Mapping[int, Predictor],
        steps: Sequence[Step] = (),
        decided: Mapping[Trigger, Sequence[Decision]] | None = None,
        computed: Mapping[Trigger, Sequence[Step]] | None = None,
    ):
        self._policies, self._steps, self._decided, self._computed = tuple(policies), steps, decided or {}, computed or {}
        self._first = steps[0].index if steps else 0
        self._final = steps[-1].index if steps else None
        self._uses: dict[int, dict[int, int]] = {}  # by policy: for each computed step the last step that asks for its value
        self._lengths: dict[int, list[int]] = {}
        fixes = [p.fix for p in self._policies if p.fix is not None]
        self._rehearsed = {step.index for step in steps if any(fix.rehearse(step) for fix in fixes)}
        self._how = {p: copy.deepcopy(how[p]) for p in how}  # what a predictor notes of its own accord is not for us
        for policy in self._policies:
            if policy.when in self._decided:
                self._look_ahead(policy, self._how[id(policy)], self._decided[policy.when])
        self.lapses = {last for uses in self._uses.values() for last in uses.values()}
        """The steps after which something has been used for the last time."""
        self.closes = max(self.lapses, default=-1) if len(self._uses) == len(self._policies) else self._final
        """The last step that uses anything; None where nobody knows."""

    @classmethod
    def after(
        cls, policies: Iterable[Policy], how: Mapping[int, Predictor], triggers: Iterable[TriggerState], steps: Sequence[Step]
    ) -> Window:
        """What is to come when triggers are in these states."""
        states = list(triggers)
        decided = {s.trigger: found for s in states if (found := _foresee(s, steps)) is not None}
        return cls(policies, how, steps, decided, {s.trigger: tuple(s.computed) for s in states})

    def with_how(self, how: Mapping[int, Predictor]) -> Window:
        """The same steps with other predictors."""
        return Window(self._policies, how, self._steps, self._decided, self._computed)

    def _look_ahead(self, policy: Policy, how: Predictor, decided: Sequence[Decision]) -> None:
        history = _learned(how, self._computed.get(policy.when, ()))
        uses: dict[int, int] = {}
        after: list[History] = []
        for step, decision in zip(self._steps, decided, strict=True):
            computes = decision is Decision.COMPUTE
            if not computes or step.index in self._rehearsed:
                uses |= {e.step.index: step.index for e in history}
            if computes:
                history = how.learn(history, step, (), NOTHING)
            after.append(history)
        kept = zip(self._steps, after, strict=True)
        self._uses[id(policy)] = uses
        self._lengths[id(policy)] = [sum(uses.get(e.step.index, -1) > step.index for e in history) for step, history in kept]

    def wants(self, policy: Policy, computed: int, now: int) -> bool:
        """Whether what was computed at step ``computed`` is used after step ``now``."""
        uses = self._uses.get(id(policy))
        if uses is None or (computed >= self._first and self.foreseen(policy.when, computed) is not Decision.COMPUTE):
            return now != self._final  # nobody knows: nobody had foreseen that it would be computed at all
        return uses.get(computed, -1) > now

    def reuses(self, policy: Policy) -> bool:
        """Whether any step to come is to be reused; true where nobody knows."""
        decided = self._decided.get(policy.when)
        return decided is None or any(d is not Decision.COMPUTE for d in decided)

    @property
    def rehearses(self) -> bool:
        """Whether a corrector will learn anything."""
        return bool(self._rehearsed)

    def foreseen(self, trigger: Trigger, index: int) -> Decision | None:
        """What was expected of a trigger at a step."""
        decided = self._decided.get(trigger, ())
        return decided[index - self._first] if 0 <= index - self._first < len(decided) else None

    def lengths(self, policy: Policy) -> list[int]:
        """How many values a site holds after each step to come; one number, the most, where that cannot be foreseen."""
        if id(policy) not in self._lengths:
            self._lengths[id(policy)] = [_fullest(self._how[id(policy)], self._steps or FILLING)]
        return self._lengths[id(policy)]


def _foresee(state: TriggerState, steps: Sequence[Step]) -> list[Decision] | None:
    """What a trigger will say at each step, if the clock alone tells."""
    if state.trigger.signals or state.trigger.check is not None or not steps:
        return None
    ahead = copy.copy(state)
    ahead.computed = []
    return [ahead.decide(step, {}) for step in steps]


def _learned(how: Predictor, steps: Iterable[Step]) -> History:
    history: History = ()
    for step in steps:
        history = how.learn(history, step, (), NOTHING)
    return history


def _fullest(how: Predictor, steps: Sequence[Step]) -> int:
    """The most entries that a history ever has."""
    history, most = (), 0
    for step in steps[: len(FILLING)]:
        history = how.learn(history, step, (), NOTHING)
        most = max(most, len(history))
    return most
