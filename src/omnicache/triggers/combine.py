"""Triggers made of triggers. Every part is asked every step, so that accumulators never miss one."""

from __future__ import annotations

from typing import Any

from omnicache.errors import OmniCacheError
from omnicache.policy import Decision, Moment, Remark, Seen, Signal, Trigger, value


class _Pair(Trigger):
    a: Trigger
    b: Trigger

    @property
    def signals(self) -> tuple[Signal, ...]:  # type: ignore[override]
        return (*self.a.signals, *self.b.signals)

    @property
    def check(self) -> Any:  # type: ignore[override]
        return self.a.check if self.a.check is not None else self.b.check

    @property
    def redo(self) -> bool:  # type: ignore[override]
        return self.a.redo or self.b.redo

    def init(self) -> Any:
        return self.a.init(), self.b.init()

    def _both(self, state: Any, moment: Moment) -> tuple[Decision, Decision, Any]:
        first, left = self.a.decide(state[0], moment)
        second, right = self.b.decide(state[1], moment)
        return first, second, (left, right)

    def settle(self, state: Any, moment: Moment, decision: Decision) -> Any:
        return self.a.settle(state[0], moment, decision), self.b.settle(state[1], moment, decision)

    def observe(self, state: Any, moment: Moment, error: float) -> tuple[bool, Any]:
        first, left = self.a.observe(state[0], moment, error)
        second, right = self.b.observe(state[1], moment, error)
        return first and second, (left, right)

    def misfit(self, total: int | None) -> str | None:
        return self.a.misfit(total) or self.b.misfit(total)

    def why(self, seen: Seen) -> tuple[Remark, ...]:
        return self.a.why(seen) + self.b.why(seen)


@value
class Or(_Pair):
    """Computes if either part does; checks if none computes and either checks."""

    a: Trigger
    b: Trigger

    @property
    def by_site(self) -> bool:  # type: ignore[override]
        return self.a.by_site or self.b.by_site

    def decide(self, state: Any, moment: Moment) -> tuple[Decision, Any]:
        first, second, state = self._both(state, moment)
        for strongest in (Decision.COMPUTE, Decision.CHECK):
            if strongest in (first, second):
                return strongest, state
        return Decision.REUSE, state

    def spares(self, state: Any, site: int) -> bool:
        return self.a.spares(state[0], site) and self.b.spares(state[1], site)


@value
class And(_Pair):
    """Computes if both parts do; checks if none of them merely reuses."""

    a: Trigger
    b: Trigger

    def __post_init__(self) -> None:
        _whole_steps("&", self.a, self.b)

    def decide(self, state: Any, moment: Moment) -> tuple[Decision, Any]:
        first, second, state = self._both(state, moment)
        for weakest in (Decision.REUSE, Decision.CHECK):
            if weakest in (first, second):
                return weakest, state
        return Decision.COMPUTE, state


@value
class Not(Trigger):
    """Computes exactly when ``a`` does not."""

    a: Trigger

    def __post_init__(self) -> None:
        _whole_steps("~", self.a)

    @property
    def signals(self) -> tuple[Signal, ...]:  # type: ignore[override]
        return self.a.signals

    def init(self) -> Any:
        return self.a.init()

    def decide(self, state: Any, moment: Moment) -> tuple[Decision, Any]:
        decision, state = self.a.decide(state, moment)
        return (Decision.REUSE if decision is Decision.COMPUTE else Decision.COMPUTE), state

    def settle(self, state: Any, moment: Moment, decision: Decision) -> Any:
        return self.a.settle(state, moment, decision)

    def misfit(self, total: int | None) -> str | None:
        return self.a.misfit(total)


def _whole_steps(sign: str, *parts: Trigger) -> None:
    """Refuse what decides site by site: of a site, only "computed if either says so" has a meaning."""
    if found := next((t for t in parts if t.by_site), None):
        raise OmniCacheError(f"{type(found).__name__} decides site by site, which `{sign}` cannot turn round. Combine it with `|`.")
