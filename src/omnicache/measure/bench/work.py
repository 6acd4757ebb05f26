"""The comparison itself: what is measured when, and what comes of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from omnicache import registry
from omnicache.errors import FAILURES, OmniCacheError, failed
from omnicache.kept.files import whole
from omnicache.kept.store import Store
from omnicache.measure.bench.chosen import chosen
from omnicache.measure.bench.fingerprint import key_of
from omnicache.measure.bench.found import Found
from omnicache.measure.bench.gauge import Gauge
from omnicache.measure.bench.memory import TIMES, held
from omnicache.measure.bench.plans import Plans
from omnicache.measure.bench.result import result_of
from omnicache.measure.bench.setting import settings_of
from omnicache.measure.bench.size import Size
from omnicache.measure.comparison import rounded
from omnicache.measure.quality import Quality
from omnicache.measure.task import Task

SHOWN = 8
"""Samples of each setting that are kept for the page."""
EARLY = 0.45
"""Share of the time after which no further setting is tried, where some are looked at closely."""

Tell = Callable[[str, int, int, float | None], None]
"""Hears what is being done, how many of how many parts are, and about how many seconds are left."""


@dataclass
class Clock:
    """Seconds of measuring, also of what an earlier process has measured, by kind."""

    took: dict[str, list[float]] = field(default_factory=dict)

    def add(self, kind: str, seconds: float) -> None:
        self.took.setdefault(kind, []).append(seconds)

    @property
    def spent(self) -> float:
        return sum(map(sum, self.took.values()))

    def mean(self, kind: str) -> float | None:
        seconds = self.took.get(kind)
        return sum(seconds) / len(seconds) if seconds else None


class Bench:
    """Measures methods on a task; see the package for the plan of the work.

    Args:
        task: what is drawn: ``size.samples`` inputs.
        folder: for results, plans, samples. What it holds is not measured again.
        names: of the methods; ``fewer-steps`` and ``none`` are added.
        size: how much is measured.
        tell: hears how far it is.
    """

    def __init__(self, task: Task, folder: str | Path, names: Iterable[str], size: Size, tell: Tell | None = None):
        self.task, self.size, self.folder, self.tell = task, size, Path(folder), tell or (lambda *_: None)
        self.store, self.clock = Store(self.folder / "rows.jsonl"), Clock()
        self.plans = Plans(task, size.calibration, self.folder / "plans")
        self.quality = Quality(task, size.batch, self.folder / "samples")
        self.gauge = Gauge(self.quality, size)
        self.skipped: dict[str, str] = {}
        self.found: list[Found] = []
        for setting in settings_of(names, size.most):
            if not size.closely and registry.get(setting.method).slow_to_calibrate:
                self.skipped[setting.method] = (
                    f"Its calibration takes minutes. Leave --quick out, or make a plan with: omnicache calibrate {task.name} "
                    f"-m {setting.method}"
                )
            else:
                self.found.append(Found(setting, key_of(setting, task, size)))

    def run(self) -> dict[str, Any]:
        """Measure what is not yet known, and return all of it: see ``result_of``."""
        self._say("uncached samples", 0)
        uncached = self._uncached()
        limit = 60 * self.size.minutes
        for i, one in enumerate(self.found):
            self._say(one.setting.label, i)
            known = self.store.get(f"first {one.key}")
            if known is not None or self.clock.spent < (EARLY * limit if self.size.closely else limit):
                self._first(one, known)
        wanted = chosen(self.found, self.size.near) if self.size.closely else []
        for i, one in enumerate(wanted):
            self._say(f"{one.setting.label}, {self.size.samples} {self.task.unit}s", len(self.found) + i, wanted)
            known = self.store.get(self._closely_key(one))
            if known is not None or self.clock.spent < limit:
                self._closely(one, known)
        self._memory()
        self._say("done", len(self.found) + len(wanted), wanted)
        for one in self.found:
            if one.refused is not None and not any(o.first for o in self.found if o.setting.method == one.setting.method):
                self.skipped.setdefault(one.setting.method, one.refused)
        about = {"sides": self.sides, "seconds": self.clock.spent, "uncached": uncached}
        return result_of(self.task, self.size, self.found, wanted, self.skipped, about)

    @property
    def sides(self) -> list[int]:
        """Pixels of a side of the samples, and of the larger ones that memory is worked out for."""
        return [times * self.quality.uncached.shape[-1] for times in TIMES]

    def pictures(self, one: Found) -> torch.Tensor | None:
        """The first samples of a setting, if they are still there."""
        path = self._pictures(one)
        return torch.load(path, weights_only=True).float() / 255 if path.exists() else None

    def _uncached(self) -> dict[str, Any]:
        key = f"uncached {self.found[0].key} {self.size.samples}"
        known, began = self.store.get(key), time.perf_counter()
        if known is None:
            if self.size.closely:
                figures = self.quality.judged(self.quality.uncached, compare=False)
            else:
                figures = {"recognised": self.task.share_recognised(self.quality.uncached), "samples": self.size.samples}
            known = self.store.put(key, {"figures": rounded(figures, 5), "took": time.perf_counter() - began})
        self.clock.add("uncached", known["took"])
        return known["figures"]

    def _first(self, one: Found, known: dict[str, Any] | None) -> None:
        if known is None:
            began = time.perf_counter()
            try:
                figures, made = self.gauge.first(self.plans.of(one.setting, one.key))
                shown = (made[:SHOWN].clamp(0, 1) * 255).round().byte()
                whole(self._pictures(one), lambda partial: torch.save(shown, partial))
                row = {"figures": rounded(figures, 5)}
            except OmniCacheError as no:
                row = {"refused": str(no)}
            except FAILURES as broken:  # it is not kept: the next time it is tried again
                one.refused = failed(broken)
                self.clock.add("first", time.perf_counter() - began)
                return
            about = {"method": one.setting.method, "options": one.setting.options}
            known = self.store.put(f"first {one.key}", {**about, **row, "took": time.perf_counter() - began})
        self.clock.add("first", known["took"])
        one.first, one.refused = known.get("figures"), known.get("refused")

    def _closely(self, one: Found, known: dict[str, Any] | None) -> None:
        assert one.first is not None
        if known is None:
            began = time.perf_counter()
            try:
                figures = self.gauge.closely(self.plans.of(one.setting, one.key), one.first["pairs"])
            except FAILURES as broken:
                self.skipped[f"{one.setting.label}, on all {self.task.unit}s"] = failed(broken)
                self.clock.add("closely", time.perf_counter() - began)
                return
            kept = {**one.first, **rounded(figures, 5)}
            about = {"method": one.setting.method, "options": one.setting.options}
            known = self.store.put(self._closely_key(one), {**about, "figures": kept, "took": time.perf_counter() - began})
        self.clock.add("closely", known["took"])
        one.closely = known["figures"]

    def _memory(self) -> None:
        for one in chosen(self.found, 0):
            key = f"memory {one.key}"
            known, began = self.store.get(key), time.perf_counter()
            if known is None:
                found = held(self.task, self.plans.of(one.setting, one.key), self.sides[0])
                known = self.store.put(key, {"bytes": found, "took": time.perf_counter() - began})
            self.clock.add("memory", known["took"])
            one.memory = known["bytes"]

    def _say(self, what: str, done: int, wanted: Sequence[Found] | None = None) -> None:
        """Tell how far it is. What is left is what is still to do, each as long as its kind has taken on average."""
        early = len(self.found)
        later = len(wanted) if wanted is not None else self._guess() if self.size.closely else 0
        first, closely = self.clock.mean("first"), self.clock.mean("closely")
        if closely is None and first is not None:  # a setting draws its first samples twice over and once under a counter
            closely = first * self.size.samples / (4 * self.size.first)
        left = None
        if first is not None:
            left = first * max(early - done, 0) + (closely or 0) * (early + later - max(done, early))
            left = min(left, max(60 * self.size.minutes - self.clock.spent, 0))
        self.tell(what, done, early + later, left)

    def _guess(self) -> int:
        """How many settings will be looked at closely, before it is known."""
        methods = {one.setting.method for one in self.found if one.refused is None}
        fewer = sum(one.setting.method == "fewer-steps" for one in self.found)
        return min(len(methods) - 2 + fewer + self.size.near, len(self.found))

    def _closely_key(self, one: Found) -> str:
        return f"closely {one.key} {self.size.samples} {self.size.pairs}"

    def _pictures(self, one: Found) -> Path:
        return self.folder / "samples" / f"{one.key}.pt"
