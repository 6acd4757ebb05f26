"""What is searched: ladders of plans, from the likest to the fastest."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
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

OURS = "omnicache-optimal"


class Optimal:
    """``omnicache-optimal`` with every number of computed steps. Measured once, and each plan kept once it is made.

    Args:
        inputs: to fit on.
        folder: for plans.

    Attributes:
        most: steps that it can compute and still be a cache: of long runs not every step may be chosen.
    """

    def __init__(self, pipe: Any, inputs: Sequence[Any], call: Mapping[str, Any], folder: Path, progress: bool, steps: int):
        self.pipe, self.inputs, self.call, self.folder, self.progress = pipe, inputs, dict(call), folder, progress
        self.steps, self.most = steps, min(steps - 1, len(among(steps)))
        self._course: Course | None = None

    def label(self, computed: int, inside: str = "", options: Mapping[str, Any] | None = None) -> str:
        return f"{OURS}, {computed} of {self.steps} steps computed" + (f", {told(inside, options or {})} inside" if inside else "")

    def plan(self, computed: int, inside: str = "", options: Mapping[str, Any] | None = None) -> Plan:
        """With so many computed steps, and a method with its options inside them.

        Raises:
            OmniCacheError: that method does not apply.
        """
        name = "-".join([str(computed), *([inside, *(f"{v:g}" for v in (options or {}).values())] if inside else [])])
        return kept_plan(self.folder / f"{OURS}-{name}.plan.json", lambda: self._made(computed, inside, options or {}))

    def _made(self, computed: int, inside: str, options: Mapping[str, Any]) -> Plan:
        within = _plan(self.pipe, inside, options) if inside else None  # before anything is drawn: it may not apply
        if self._course is None:
            self._course = Course(self.pipe, self.inputs, self.call, self.progress)
        asked = {"reuse": 1 - computed / self.steps, "measured": self._course, "inside": within, **self.call}
        return calibrate(self.pipe, self.inputs, OURS, progress=self.progress, **asked)


def others(pipe: Any, names: Sequence[str]) -> Iterator[tuple[str, Callable[[], Plan]]]:
    """All settings of methods that need no calibration, each with its label."""
    for name in names:
        for options in registry.get(name).settings:
            if not registry.get(name).calibrates(options):
                yield told(name, options), lambda name=name, options=options: _plan(pipe, name, options)


def calibrated(names: Iterable[str]) -> list[str]:
    """Those of these methods of which a setting must be calibrated: :func:`others` has none of it."""
    return [name for name in names if any(map(registry.get(name).calibrates, registry.get(name).settings))]


def told(name: str, options: Mapping[str, Any]) -> str:
    """A method with its options, in words."""
    return ", ".join([name, *registry.in_words(options)])


def guarded(plan: Plan, guards: Guards | None) -> Plan:
    return plan if guards is None else replace(plan, guards=guards)


def _plan(pipe: Any, name: str, options: Mapping[str, Any]) -> Plan:
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
