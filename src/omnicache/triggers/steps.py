from __future__ import annotations

from typing import Annotated, Any

from omnicache.policy import Decision, Moment, Trigger, value
from omnicache.schema import Range

Index = Annotated[int, Range(0)]


@value
class Steps(Trigger):
    """Computes the steps of a list, counted from 0.

    Attributes:
        at: the list.
        total: the length of runs that it was made for; in a run of another length the step ``at * length / total``, rounded down,
            is computed in place of each, and in one of unknown length every step. None: the list holds as it is for all runs.
        others: lists for runs of other lengths; a run that has one of its own is not scaled.
    """

    at: tuple[Index, ...]
    total: Annotated[int | None, Range(1)] = None
    others: tuple[Steps, ...] = ()

    def listed(self, total: int | None) -> frozenset[int] | None:
        """The computed steps of a run of ``total`` steps; None if all are."""
        if self.total is None:
            return frozenset(self.at)
        if total is None:
            return None
        own = next((other for other in self.others if other.total == total), None)
        if own is not None:
            return own.listed(total)
        return frozenset(i * total // self.total for i in self.at)

    def decide(self, state: Any, moment: Moment) -> tuple[Decision, Any]:
        listed = self.listed(moment.step.total)
        return (Decision.COMPUTE if listed is None or moment.step.index in listed else Decision.REUSE), state
