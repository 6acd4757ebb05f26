"""What is searched: ladders of plans, from the likest to the fastest."""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import omnicache
from omnicache import registry
from omnicache.api import calibrate
from omnicache.calibrate.optimal import Course
from omnicache.calibrate.steps.shortest import among
from omnicache.errors import OmniCacheError
from omnicache.guards import Guards
from omnicache.kept.plans import kept_plan
from omnicache.plan import Plan
from omnicache.tuning.compositions import Inside
from omnicache.tuning.gauge import Gauge

OURS = "omnicache-optimal"
FEWER = "fewer-steps"
FEW = 10
"""Plain steps up to which every number is tried: between 5 and 6 lies a fifth of the time."""
NOTHING: Inside = {}
PROBES = 2
"""Inputs that the growth of errors is measured on."""


class Optimal:
    """``omnicache-optimal`` with every number of computed steps. Measured once, and each plan kept once it is made.

    Args:
        gauge: has the pipeline, a folder for plans, and the clock.
        inputs: to fit on.

    Attributes:
        most: steps that it can compute and still be a cache: of long runs not every step may be chosen.
    """

    def __init__(self, gauge: Gauge, inputs: Sequence[Any], call: Mapping[str, Any], progress: bool, steps: int):
        self.gauge, self.pipe, self.inputs, self.call, self.progress = gauge, gauge.pipe, inputs, dict(call), progress
        self.steps, self.most = steps, min(steps - 1, len(among(steps)))
        self._measured: Course | None = None

    def label(self, computed: int, inside: Inside = NOTHING) -> str:
        within = " + ".join(told(name, options) for name, options in inside.items())
        return f"{OURS}, {computed} of {self.steps} steps computed" + (f", {within} inside" if inside else "")

    def plan(self, computed: int, inside: Inside = NOTHING) -> Plan:
        """With so many computed steps, and methods with their options inside them.

        Raises:
            OmniCacheError: one of those methods does not apply.
        """
        parts = [part for name, options in inside.items() for part in (name, *(f"{v:g}" for v in options.values()))]
        name = "-".join([str(computed), *parts])
        path = self.gauge.place / "plans" / f"{OURS}-{name}.plan.json"
        if not path.exists():
            self._within(inside)  # before anything is drawn: it may not apply
        self.gauge.once("course", self._course)
        if not path.exists():
            self._course()  # what an earlier process has measured is measured again, and does not count again

        def kept() -> Plan:
            return kept_plan(path, lambda: self._made(computed, inside))

        self.gauge.once(path.name, kept)
        return kept()

    def _course(self) -> Course:
        """What every plan is made of."""
        if self._measured is None:
            self._measured = Course(self.pipe, self.inputs, self.call, self.progress)
            self._measured.schedules(1, PROBES)  # all of it now, so that no plan pays for another
        return self._measured

    def _within(self, inside: Inside) -> Plan | None:
        plans = [plan_for(self.pipe, name, options) for name, options in inside.items()]
        return functools.reduce(operator.add, plans) if plans else None

    def _made(self, computed: int, inside: Inside) -> Plan:
        within = self._within(inside)
        asked = {"reuse": 1 - computed / self.steps, "probes": PROBES, "measured": self._course(), "inside": within, **self.call}
        return calibrate(self.pipe, self.inputs, OURS, progress=self.progress, **asked)


def others(pipe: Any, names: Sequence[str], steps: int) -> Iterator[tuple[str, Callable[[], Plan]]]:
    """All settings of methods that need no calibration, each with its label; of fewer steps every small number, too."""
    for name in names:
        for options in (*registry.get(name).settings, *(few(steps) if name == FEWER else ())):
            if not registry.get(name).calibrates(options):
                yield told(name, options), lambda name=name, options=options: plan_for(pipe, name, options)


def few(steps: int) -> list[dict[str, float]]:
    """Ratios for the numbers of steps up to :data:`FEW` that the usual ones pass over; two may be as fast as anything."""
    known = {round(options["ratio"] * steps) for options in registry.get(FEWER).settings}
    return [{"ratio": round(n / steps, 3)} for n in range(2, min(FEW, steps - 1) + 1) if n not in known and n / steps >= 0.02]


def calibrated(names: Iterable[str]) -> list[str]:
    """Those of these methods of which a setting must be calibrated: :func:`others` has none of it."""
    return [name for name in names if any(map(registry.get(name).calibrates, registry.get(name).settings))]


def told(name: str, options: Mapping[str, Any]) -> str:
    """A method with its options, in words."""
    return ", ".join([name, *registry.in_words(options)])


def guarded(plan: Plan, guards: Guards | None) -> Plan:
    return plan if guards is None else replace(plan, guards=guards)


def plan_for(pipe: Any, name: str, options: Mapping[str, Any]) -> Plan:
    """With what is known for the pipeline's model.

    Raises:
        OmniCacheError: the method does not apply to it.
    """
    with omnicache.cache(pipe, name, **options) as run:
        return run.plan


def steps_of(pipe: Any, call: Mapping[str, Any]) -> int:
    """Sampler steps of a call.

    Raises:
        OmniCacheError: the pipeline takes no number of steps.
    """
    known = inspect.signature(pipe.__call__).parameters.get("num_inference_steps")
    asked = call.get("num_inference_steps", known.default if known is not None else None)
    if not isinstance(asked, int):
        raise OmniCacheError("Say for how many steps the plan is to be: tune(..., num_inference_steps=50).")
    return asked
