"""Plans that decide module by module: a table of modules and steps as policies, and the sentence where there is none."""

from __future__ import annotations

from omnicache.errors import OmniCacheError
from omnicache.granularity import Nth
from omnicache.policy import Policy, Predictor, Where
from omnicache.triggers import Table

Rows = tuple[str, ...]
"""For each module one character a step: "#" computed, "." reused."""


def tabled(schedule: str | Rows, where: Where, how: Predictor) -> tuple[Policy, ...]:
    """The policies of a table. Modules with equal rows are governed by one policy, and so share its decision.

    Args:
        schedule: a row for each module that ``where`` picks, in the model's order, or one for all of them.
        where: the modules. A model in which there are more or fewer of them than rows is refused.
        how: what fills in.
    """
    if isinstance(schedule, str):
        return (Policy(Table(schedule), where, how),)
    alike: dict[str, list[int]] = {}
    for i, row in enumerate(schedule):
        alike.setdefault(row, []).append(i)
    reused = {row: places for row, places in alike.items() if "." in row} or alike
    return tuple(Policy(Table(row), Nth(where, tuple(places), len(schedule)), how) for row, places in reused.items())


def check_rows(method: str, schedule: str | Rows, what: str = "module") -> None:
    """Raise OmniCacheError unless ``schedule`` is a row, or some of one length, of "#" and "."."""
    rows = (schedule,) if isinstance(schedule, str) else schedule
    if not rows or not all(rows) or any(set(row) - {"#", "."} or len(row) != len(rows[0]) for row in rows):
        raise OmniCacheError(
            f"{method} needs a fitted schedule of each {what}, all of one length: "
            f"plan = omnicache.calibrate(pipe, inputs, {method!r}), then omnicache.cache(pipe, plan). "
            f"On the command line: omnicache calibrate PIPE -m {method} --out my.plan.json, then --method my.plan.json."
        )
