"""The comparison itself: what is measured when, and what comes of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from omnicache.errors import OmniCacheError
from omnicache.errors import nearest as nearest_name
from omnicache.kept.store import Store
from omnicache.measure.bench.work import Clock, Tell
from omnicache.measure.comparison import rounded
from omnicache.measure.peers.choice import finalists, settled
from omnicache.measure.peers.contender import Setting, contender
from omnicache.measure.peers.entry import Entry, chosen_of
from omnicache.measure.peers.fingerprint import key_of, scene_key
from omnicache.measure.peers.gauge import Gauge
from omnicache.measure.peers.pool import Pool
from omnicache.measure.peers.result import result_of
from omnicache.measure.peers.scene import Spec
from omnicache.measure.peers.size import Size, spread
from omnicache.measure.peers.verdict import NO_TIME, RIVALS, best
from omnicache.measure.peers.worker import Gone, Refused, Worker

HERE = "omnicache.measure.peers"
CONTENDERS = {
    "tuned": f"{HERE}.omnicache_tuned",
    "fewer-steps": f"{HERE}.fewer_steps",
    "solvers": f"{HERE}.solvers",
    "cache-dit": f"{HERE}.cache_dit_package",
    "diffusers": f"{HERE}.diffusers_caches",
    "DeepCache": f"{HERE}.deepcache_package",
    "tomesd": f"{HERE}.tomesd_package",
    "methods": f"{HERE}.omnicache_methods",
}
"""Modules, each with a ``CONTENDER``, by a short name; the first is the one that is judged."""
EARLY = 0.55
"""Share of the time after the plans were tuned in which settings are tried; contenders have equal parts, and what others leave."""
ALIKE = 60.0
"""PSNR in dB that two processes must agree by when nothing is on."""
GUESS = 20
"""Settings of a contender that has not yet been asked."""


class Peers:
    """Measures contenders on one model; see the package for the plan of the work.

    Args:
        model: of the zoo.
        folder: for results, plans, pictures, logs. What it holds is not measured again.
        size: how much is measured.
        steps: of the sampler; the model's own number if None.
        guidance: the model's own if None.
        goals: PSNR to the uncached pictures, in dB.
        contenders: modules with a ``CONTENDER``; the first is judged.
        tell: hears how far it is.
    """

    def __init__(
        self,
        model: str,
        folder: str | Path,
        size: Size,
        steps: int | None = None,
        guidance: float | None = None,
        goals: Sequence[float] = (30.0, 25.0),
        contenders: Sequence[str] = tuple(CONTENDERS.values()),
        tell: Tell | None = None,
    ):
        self.folder, self.size, self.tell = Path(folder).resolve(), size, tell or (lambda *_: None)
        threads = torch.get_num_threads()
        self.spec = Spec(
            model, steps, guidance, size.samples, size.tuning, tuple(goals), threads, self.folder, 60 * size.minutes / 12
        )
        self.store, self.clock = Store(self.folder / "peers.jsonl"), Clock()
        self.entries = [Entry(module, contender(module)) for module in contenders]
        self._done = 0

    def run(self) -> dict[str, Any]:
        """Measure what is not yet known, and return all of it: see ``result_of``."""
        with ExitStack() as stack:

            @cache
            def plain() -> Worker:
                return stack.enter_context(Worker(self.spec, None, self.folder / "logs" / "uncached.txt"))

            pictures = self.folder / "samples" / scene_key(self.spec, self.size)
            gauge = Gauge(plain, self.size, pictures)
            pool = stack.enter_context(Pool(self.spec, self.folder / "logs", lambda worker: _agree(gauge, worker)))
            self._say("uncached pictures")
            self._first(gauge, pool)
            self._finals(gauge, pool)
            chosen = chosen_of(self.entries, self.spec.goals)
            self._closely(chosen, gauge, pool)
            duels = self._duels(chosen, gauge, pool)
        self._say("done")
        return result_of(self.spec, self.size, self.entries, chosen, duels, self.clock.spent)

    # --- every setting, on the tuning inputs -------------------------------------------------------------------------------

    def _first(self, gauge: Gauge, pool: Pool) -> None:
        """All contenders have equal parts of the time, and then what others have left of theirs."""
        for i, entry in enumerate(self.entries):
            self._open(entry, pool)
            self._try(entry, entry.settings, gauge, pool, len(self.entries) - i)
        late = [entry for entry in self.entries if entry.left_out]
        for i, entry in enumerate(late):
            self._try(entry, entry.left_out, gauge, pool, len(late) - i)

    def _open(self, entry: Entry, pool: Pool) -> None:
        """List a contender's settings, or why it has none."""
        it = entry.contender
        if it.package is not None and it.version is None:
            entry.why = f'Not installed. To have it compared: pip install "omnicache[peers]", or pip install {it.package}'
            return
        try:
            self._list(entry, pool)
        except Refused as no:
            entry.why = str(no)

    def _try(self, entry: Entry, settings: Sequence[Setting], gauge: Gauge, pool: Pool, to_come: int) -> None:
        """So many of these settings of a contender as there is time for, if so many contenders are to come, this one counted."""
        asked = sum(self.clock.took.get("settings", ()))  # the tuned plans are made in it; the others' time begins after that
        early = asked + EARLY * max(60 * self.size.minutes - asked, 0)
        limit = self.clock.spent + max(early - self.clock.spent, 0) / to_come
        entry.left_out = []
        for setting in settings:
            known = self.store.get(f"first {key_of(entry.contender, setting, self.spec, self.size)}")
            if known is None and self.clock.spent > limit:
                entry.left_out.append(setting)
                continue
            self._say(f"{entry.contender.name}: {setting.label}")
            entry.rows.append(self._row(entry, setting, known, gauge, pool))
            self._done += 1

    def _list(self, entry: Entry, pool: Pool) -> None:
        """Its settings, or so many of them as are wanted, in an order of which every beginning is spread over all of them."""
        key = f"settings {key_of(entry.contender, None, self.spec, self.size)}"
        known = self.store.get(key)
        if (
            known is not None
            and known.get("budget", 0.0) < self.spec.budget
            and any("why" in o for o, _ in known.get("settings", ()))
        ):
            known = None  # there was no time for a plan, and now there is more
        if known is None:
            self._say(f"{entry.contender.name}: which settings")
            began = time.perf_counter()
            try:
                found: dict[str, Any] = {"settings": [[dict(s.options), s.label] for s in pool.of(entry.module).settings()]}
            except Gone:  # not kept: the next time it is asked again
                raise
            except Refused as no:
                found = {"why": str(no)}
            known = self.store.put(key, {**found, "took": time.perf_counter() - began, "budget": self.spec.budget})
        self.clock.add("settings", known["took"])
        if "why" in known:
            raise Refused(known["why"])
        listed = [Setting(options, label) for options, label in known["settings"]]
        entry.settings = [listed[i] for i in spread(len(listed))][: self.size.most]

    def _row(self, entry: Entry, setting: Setting, known: dict[str, Any] | None, gauge: Gauge, pool: Pool) -> dict[str, Any]:
        about: dict[str, Any] = {"contender": entry.contender.name, "kind": entry.contender.kind, "label": setting.label}
        about["options"] = dict(setting.options)
        if known is None:
            began = time.perf_counter()
            try:
                worker = pool.of(entry.module)
                worker.use(setting)
                made_for_one = "goal" in setting.options  # whoever made it has chosen it
                why = (lambda *_: "") if made_for_one else partial(settled, entry.rows, self.spec.goals)
                found = rounded(gauge.first(worker, why), 5)
                found["state"] = "nothing" if found.pop("nothing") else "measured"
            except Gone as no:  # not kept: the next time it is tried again; but the time is gone, too
                self.clock.add("first", time.perf_counter() - began)
                return {**about, "state": "refused", "why": str(no)}
            except Refused as no:
                found = {"state": "refused", "why": str(no)}
            key = f"first {key_of(entry.contender, setting, self.spec, self.size)}"
            known = self.store.put(key, {**found, "took": time.perf_counter() - began})
        self.clock.add("first", known["took"])
        return {**about, **{k: v for k, v in known.items() if k not in ("key", "took")}}

    def _finals(self, gauge: Gauge, pool: Pool) -> None:
        """Time the fastest settings of each contender that may be the best of its kind again: the fastest by a few pairs is often
        the luckiest."""
        for entry in self.entries:
            kind = [row for other in self.entries if other.contender.kind == entry.contender.kind for row in other.rows]
            for goal in self.spec.goals:
                for row in finalists(entry.rows, goal, self.size.finalists, kind):
                    setting = Setting(row["options"], row["label"])
                    if "first_pairs" in row:  # it has been a finalist for another goal
                        continue
                    self._say(f"{entry.contender.name}: {setting.label}, again")
                    key = f"final {key_of(entry.contender, setting, self.spec, self.size)} {self.size.final_pairs}"
                    known = row["pairs"]
                    figures, _ = self._kept(
                        key, "final", lambda entry=entry, s=setting, known=known: gauge.again(_wearing(pool, entry, s), known)
                    )
                    row |= {"first_pairs": len(known), **(figures or {})}

    # --- the chosen ones, on held-out inputs -------------------------------------------------------------------------------

    def _closely(self, chosen: Sequence[dict[str, Any]], gauge: Gauge, pool: Pool) -> None:
        for entry in self.entries:
            for one in (one for one in chosen if one["contender"] == entry.contender.name and one["label"] is not None):
                setting = Setting(one["options"], one["label"])
                self._say(f"{entry.contender.name}: {setting.label}, {self.size.samples} held-out inputs")
                key = f"closely {key_of(entry.contender, setting, self.spec, self.size)} {self.size.pairs}"
                figures = lambda entry=entry, s=setting: gauge.closely(_wearing(pool, entry, s))  # noqa: E731
                one["held"], one["why"] = self._kept(key, "closely", figures)
                self._done += 1

    def _duels(self, chosen: Sequence[dict[str, Any]], gauge: Gauge, pool: Pool) -> list[dict[str, Any]]:
        """The tuned plan against the best of each kind of rival, for each goal; with ``why`` where there are no
        figures."""
        made = []
        judged = self.entries[0]
        for goal in self.spec.goals:
            ours = next((o for o in chosen if o["goal"] == goal and o["contender"] == judged.contender.name), None)
            for kind in RIVALS:
                rival = best(chosen, goal, kind)
                if ours is None or ours["held"] is None or rival is None:
                    continue
                other = next(entry for entry in self.entries if entry.contender.name == rival["contender"])
                sides = [(judged, Setting(ours["options"], ours["label"])), (other, Setting(rival["options"], rival["label"]))]
                key = " ".join(["duel", *(key_of(e.contender, s, self.spec, self.size) for e, s in sides), str(self.size.pairs)])
                self._say(f"duel at {goal:g} dB: {rival['contender']}, {rival['label']}")

                found, why = self._kept(key, "duel", lambda sides=sides: gauge.duel(*(_wearing(pool, *side) for side in sides)))
                about = {"goal": goal, "kind": kind, "rival": rival["contender"], "label": rival["label"]}
                made.append({**about, **(found if found is not None else {"why": why})})
        return made

    def _kept(self, key: str, kind: str, figures: Callable[[], dict[str, Any]]) -> tuple[dict[str, Any] | None, str]:
        """Figures of the store, or measured now; or None, and why not."""
        known = self.store.get(key)
        if known is None:
            if self.clock.spent > 60 * self.size.minutes:
                return None, NO_TIME
            began = time.perf_counter()
            try:
                found = rounded(figures(), 5)
            except Refused as no:
                self.clock.add(kind, time.perf_counter() - began)
                return None, str(no)
            known = self.store.put(key, {"figures": found, "took": time.perf_counter() - began})
        self.clock.add(kind, known["took"])
        return known["figures"], ""

    def _say(self, what: str) -> None:
        """Tell how far it is. What is left is what is still to do, each as long as its kind has taken on average."""
        most = self.size.most or 10**9
        opened = sum(
            min(len(entry.settings), most) if entry.settings else 0 if entry.why else min(GUESS, most) for entry in self.entries
        )
        closely = len(self.spec.goals) * sum(entry.why is None for entry in self.entries)
        first, later = self.clock.mean("first"), self.clock.mean("closely")
        left = None
        if first is not None:
            later = later if later is not None else first * self.size.samples / self.size.tuning / 2
            tried = sum(len(entry.rows) for entry in self.entries)
            left = first * max(opened - tried, 0) + later * max(closely - (self._done - tried), 0)
            left = min(left, max(60 * self.size.minutes - self.clock.spent, 0))
        self.tell(what, self._done, opened + closely, left)


def _wearing(pool: Pool, entry: Entry, setting: Setting) -> Worker:
    worker = pool.of(entry.module)
    worker.use(setting)
    return worker


def _agree(gauge: Gauge, worker: Worker) -> None:
    agreed = gauge.same(worker)
    if agreed < ALIKE:
        raise Refused(f"Before anything is set, its process draws other pictures than the uncached one ({agreed:.0f} dB).")


def modules_of(names: Sequence[str]) -> list[str]:
    """The modules of contenders by their short names, the judged one always first.

    Raises:
        OmniCacheError: there is no such contender.
    """
    for name in names:
        if name not in CONTENDERS:
            raise OmniCacheError(
                f"There is no contender {name!r}.{nearest_name(name, CONTENDERS)} There are {', '.join(CONTENDERS)}."
            )
    return [module for name, module in CONTENDERS.items() if name in ("tuned", *names)]
