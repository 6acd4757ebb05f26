"""The search for a goal: a bisection of what is solved exactly, a screening of other methods, and compositions by Optuna."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from omnicache import registry
from omnicache.calibrate.progress import progress as bar
from omnicache.errors import FAILURES, OmniCacheError, failed, warn
from omnicache.fingerprint import made_for
from omnicache.integrations.pipelines import check_inputs, split_call
from omnicache.measure.likeness import EQUAL
from omnicache.measure.quality import mean95
from omnicache.plan import Plan
from omnicache.tuning.compositions import COUNT, INSIDE, Inside, boldest, compose
from omnicache.tuning.gauge import Gauge
from omnicache.tuning.goal import Goal
from omnicache.tuning.ladders import FEWER, OURS, Optimal, calibrated, guarded, others, plan_for, steps_of, told
from omnicache.tuning.trial import Trial, mean_and_error
from omnicache.words import some

AUTO = (OURS, "taylorseer", FEWER)
FITTED = 4
"""Inputs that numbers are fitted on, at most."""
FIRST = 2
"""Inputs that a setting is drawn for before it is looked at more closely."""
SCREEN = 3.0
"""dB that it may be short of the goal on those."""


def parts(inputs: int) -> tuple[int, list[int], list[int]]:
    """Of so many inputs the number that is fitted on, and those that are chosen by, and those held out. Of two inputs the first
    is both fitted on and chosen by."""
    fitted = min(FITTED, max(round(inputs / 4), 1))
    held = max((inputs - fitted) // 2, 1)
    return fitted, list(range(fitted if inputs - held > fitted else 0, inputs - held)), list(range(inputs - held, inputs))


class Tuning:
    """One search.

    Attributes:
        by: inputs that plans are chosen by. Nothing was fitted on them, or plans would seem better than they are.
        held: inputs that nothing is chosen by.
        refused: what could not be tried, with why.
        left_out: what there was no time for.
    """

    def __init__(
        self,
        pipe: Any,
        inputs: Sequence[Any],
        goal: Goal,
        call: Mapping[str, Any],
        folder: Path,
        progress: bool,
        seconds: float,
    ):
        self.goal, self.progress, self.seconds, self.steps = goal, progress, seconds, steps_of(pipe, call)
        self.gauge = Gauge(pipe, inputs, call, folder)
        fitted, self.by, self.held = parts(len(inputs))
        fitted = inputs[:fitted]
        self.optimal = Optimal(self.gauge, fitted, {**call, "num_inference_steps": self.steps}, progress, self.steps)
        self.trials: dict[str, Trial] = {}
        self.refused: dict[str, str] = {}
        self.left_out: list[str] = []

    @property
    def late(self) -> bool:
        """Whether the time is up, counted by what the figures took, so that an interruption changes nothing about it."""
        return self.gauge.clock.spent >= self.seconds

    def solve(self) -> None:
        """Our own method: more computed steps are slower and likelier, so the goal is between two of them, which a few plans tell;
        those beside it are looked at if there is time."""
        low, high = 1, self.optimal.most
        if self.goal.like is not None:
            while low < high:
                middle = (low + high) // 2
                if self._sure(middle) >= self.goal.like:
                    high = middle
                else:
                    low = middle + 1
        else:
            assert self.goal.speedup is not None
            while low < high:
                middle = (low + high + 1) // 2
                if self._fast(middle) >= self.goal.speedup:
                    low = middle
                else:
                    high = middle - 1
        self._own(low)
        for computed in (low - 1, low + 1):
            if 1 <= computed <= self.optimal.most:
                if self.late:
                    self.left_out.append(self.optimal.label(computed))
                else:
                    self._own(computed)

    def screen(self, names: Sequence[str]) -> None:
        """Other methods: each setting on two inputs, and those that may do on all; if none does, the likest, to be told of."""
        self.refused |= dict.fromkeys(calibrated(names), f"Of methods that must be calibrated only {OURS} is searched.")
        listed = list(others(self.gauge.pipe, names, self.steps))
        passed_over: list[tuple[float, str, Plan]] = []
        with bar("other methods ", len(listed), self.progress) as done:
            for at, (label, make) in enumerate(listed):
                done()
                if self.late:
                    self.left_out += [label for label, _ in listed[at:]]
                    return
                with self._told(label):
                    plan = guarded(make(), self.goal.guards)
                    first, _ = self.gauge.likeness(self._key(label), plan, self.by[:FIRST])
                    like = sum(first) / len(first)
                    if self.goal.like is not None and like < self.goal.like - SCREEN:
                        passed_over.append((like, label, plan))
                    else:
                        self._trial(label, plan)
        if passed_over and not any(map(self.goal.reached, self.trials.values())):
            _, label, plan = max(passed_over, key=lambda one: one[:2])
            with self._told(label):
                self._trial(label, plan)

    def compose(self) -> None:
        """Our own method with others inside its computed steps."""
        if self.goal.memory is not None:
            self.refused["compositions"] = "What is inside is kept, too, so none is tried within a limit of memory."
            return
        enough_of = self.goal.alike if self.goal.like is not None else self.goal.fast  # it is to get faster, and gets less like
        own = {c: t for c in range(1, self.optimal.most + 1) if (t := self.trials.get(self.optimal.label(c))) is not None}
        good = [c for c, trial in own.items() if enough_of(trial)]
        if not good:
            self.refused["compositions"] = f"No number of computed steps of {OURS} is enough, and what is inside costs likeness."
            return
        if self.late:
            self.left_out.append(f"{COUNT} compositions")
            return
        best = min(good) if self.goal.like is not None else max(good)
        try:
            with bar("compositions  ", COUNT, self.progress) as done:
                score = lambda *asked: (done(), self._score(*asked))[1]  # noqa: E731
                left = compose(self.optimal.most, best, self._acting(), score, lambda: self.late)
            self.left_out += [f"{left} compositions"] * (left > 0)
        except OmniCacheError as no:
            self.refused["compositions"] = str(no)

    def _acting(self) -> list[str]:
        """Of what may be inside that which reuses something here when it is alone: of guidance, nothing where there is none."""
        found = []
        for name in INSIDE:
            with self._told(f"{name} inside"):
                options = boldest(name)
                self.gauge.likeness(told(name, options), plan_for(self.gauge.pipe, name, options), self.by[:1])
                if self.gauge.idle(told(name, options), self.by[:1]):
                    raise OmniCacheError("It reuses nothing here.")
                found.append(name)
        return found

    def _refuse_idle(self, key: str, plan: Plan, inside: Inside) -> None:
        """Refuse a composition that draws the same without one of the methods inside: it is another one under a longer name.

        Raises:
            OmniCacheError: it does.
        """
        whole, _ = self.gauge.likeness(key, plan, self.by[:1])
        for name, options in inside.items():
            own = plan_for(self.gauge.pipe, name, options).policies
            rest = replace(plan, policies=tuple(p for p in plan.policies if p not in own))
            if self.gauge.likeness(f"{key}, without {name}", rest, self.by[:1])[0] == whole:
                raise OmniCacheError(f"Inside the computed steps {name} reuses nothing.")

    def _score(self, computed: int, inside: Inside) -> float | None:
        """Speed of what is like enough, or likeness of what is fast enough; below 0 what is neither, and what is far from like
        enough on the first inputs, or the same as without anything inside, is not timed. None of what breaks."""
        label = self.optimal.label(computed, inside)
        key, like, fast = self._key(label), self.goal.like, self.goal.speedup
        with self._told(label):
            try:
                plan = guarded(self.optimal.plan(computed, inside), self.goal.guards)
                first, _ = self.gauge.likeness(key, plan, self.by[:FIRST])
                self._refuse_idle(key, plan, inside)
            except OmniCacheError as no:  # of other steps it may be otherwise
                self.refused[label] = str(no)
                return -EQUAL
            if like is not None and (short := like - SCREEN - sum(first) / len(first)) > 0:
                return -SCREEN - short
            self._trial(label, plan)
        if (trial := self.trials.get(label)) is None:
            return None
        if not self.goal.reached(trial):
            return min(trial.sure - like if like is not None else 0.0, trial.speedup - fast if fast is not None else 0.0)
        return trial.speedup if like is not None else trial.psnr

    @contextmanager
    def _told(self, label: str) -> Iterator[None]:
        """What cannot be, or breaks, is told at the end; the others go on."""
        try:
            yield
        except FAILURES as broken:
            self.refused[label] = failed(broken)

    def _own(self, computed: int) -> Trial:
        return self._trial(self.optimal.label(computed), guarded(self.optimal.plan(computed), self.goal.guards))

    def _sure(self, computed: int) -> float:
        plan = guarded(self.optimal.plan(computed), self.goal.guards)
        found, _ = self.gauge.likeness(self._key(self.optimal.label(computed)), plan, self.by)
        mean, error = mean_and_error(found)
        return mean - error

    def _fast(self, computed: int) -> float:
        plan = guarded(self.optimal.plan(computed), self.goal.guards)
        return self.gauge.speedup(self._key(self.optimal.label(computed)), plan, self.by[0])["speedup"]["median"]

    def _trial(self, label: str, plan: Plan) -> Trial:
        if label not in self.trials:
            key = self._key(label)
            found, held = self.gauge.likeness(key, plan, self.by)
            if self.gauge.idle(key, self.by):  # any speed would be an accident
                within = "" if self.goal.memory is None else f" within {self.goal.memory}"
                raise OmniCacheError(f"It reuses nothing{within}.")
            fast = self.gauge.speedup(key, plan, self.by[0])["speedup"]["median"]
            mean, error = mean_and_error(found)
            self.trials[label] = Trial(label, plan, mean, fast, held, error)
        return self.trials[label]

    def _key(self, label: str) -> str:
        return label if self.goal.memory is None else f"{label}, at most {self.goal.memory}"

    def result(self) -> Plan:
        """The best plan, with what it reached on inputs that it was not chosen by.

        Raises:
            OmniCacheError: the goal was not reached, or nothing could be tried.
        """
        if not self.trials:
            why = " ".join(f"{label}: {no}" for label, no in self.refused.items()) or "There was no time for any."
            raise OmniCacheError(f"{self.goal} was not reached: nothing could be tried. {why}")
        try:
            best = self.goal.best(list(self.trials.values()))
        except OmniCacheError as no:
            late = f" There was no time for {some(self.left_out)}; a longer budget goes on from here." if self.left_out else ""
            raise OmniCacheError(f"{no}{late}") from None
        each, held = self.gauge.likeness(self._key(best.label), best.plan, self.held)
        fast = self.gauge.speedup(self._key(best.label), best.plan, self.held[0])  # the fastest of many was lucky, too
        reached = {
            "goal": str(replace(self.goal, psnr=self.goal.like)),  # a limit of memory alone asks for a likeness, too
            "chosen": best.figures,
            "inputs": len(self.by),
            "held_out": {"psnr": mean95(torch.tensor(each)), "inputs": len(each), "cache_bytes": held, "speedup": fast["speedup"]},
            "load": fast["load"],
            "tried": [t.figures for t in sorted(self.trials.values(), key=lambda t: -t.speedup)],
            "refused": self.refused,
            "left_out": self.left_out,
        }
        said, asked = self.goal.missed(sum(each) / len(each), fast["speedup"]["median"])
        if said:
            warn(
                f"OmniCache: {self.goal} is missed on inputs that nothing was chosen by: on {len(each)} of them {best.label} "
                f"{' and '.join(said)}. Give more inputs than these {len(self.gauge.inputs)}, or ask for {' and '.join(asked)}."
            )
        return best.plan.with_measured(**{**best.plan.measured, "tuned": reached})


def tune(
    pipe: Any,
    inputs: Sequence[Any],
    goal: Goal,
    methods: str | Sequence[str],
    budget: str | float,
    folder: str | Path | None,
    progress: bool,
    call: Mapping[str, Any],
) -> Plan:
    """See ``omnicache.tune``."""
    seconds = seconds_of(budget)
    listed = check_inputs(inputs)
    if len(listed) < 2:
        raise OmniCacheError("Give two inputs or more: some are held out, to say what the plan does to others. Sixteen do.")
    _, asked = split_call(pipe, call, set(), "tune")
    if "output_type" not in asked and "output_type" in inspect.signature(pipe.__call__).parameters:
        asked["output_type"] = "pt"
    wanted = AUTO if methods == "auto" else tuple(registry.METHODS) if methods == "all" else tuple(_names(methods))
    base = Path(folder) if folder is not None else _cache() / "tune"
    tuning = Tuning(pipe, listed, goal, asked, base, progress, seconds)
    if OURS in wanted:
        try:
            tuning.solve()
        except OmniCacheError as no:
            if wanted == (OURS,):
                raise
            tuning.refused[OURS] = str(no)
            warn(f"OmniCache: {OURS} does not apply here, so only other methods are searched. {no}")
    tuning.screen([name for name in wanted if name not in (OURS, "none")])
    if OURS in wanted:
        tuning.compose()
    plan = tuning.result()
    found = made_for(pipe, {**asked, "num_inference_steps": tuning.steps}, listed) | tuning.gauge.latents
    return replace(plan, made_for={**plan.made_for, **found})


def seconds_of(budget: str | float) -> float:
    """``"10 min"`` in seconds.

    Raises:
        OmniCacheError: not a time.
    """
    number, _, unit = str(budget).strip().partition(" ")
    units = {"s": 1, "sec": 1, "min": 60, "h": 3600, "": 1}
    try:
        seconds = float(number) * units[unit.strip()]
    except (ValueError, KeyError):
        seconds = math.nan
    if not seconds >= 0:
        raise OmniCacheError(f'budget is a time: "10 min", "90 s" or a number of seconds, not {budget!r}.')
    return seconds


def _names(methods: str | Sequence[str]) -> list[str]:
    """Raises:
    OmniCacheError: there is no such method, or it is of those that are calibrated, which a search does not do.
    """
    given = methods.split(",") if isinstance(methods, str) else methods
    entries = [registry.get(name.strip()) for name in given]
    for entry in entries:
        if entry.name != OURS and entry.settings and all(map(entry.calibrates, entry.settings)):
            raise OmniCacheError(
                f"{entry.name} must be calibrated for each of its settings, and of such methods tune tries {OURS} alone. For one "
                f"setting: omnicache.calibrate(pipe, inputs, {entry.name!r})."
            )
    return [entry.name for entry in entries]


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "omnicache"
