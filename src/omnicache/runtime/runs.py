from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from omnicache.runtime.call import Call
from omnicache.runtime.caller import callers
from omnicache.runtime.clock import Clock
from omnicache.runtime.run import Run

if TYPE_CHECKING:
    from omnicache.runtime.session import Session

MOST_BRANCHES = 8

_request: ContextVar[Any] = ContextVar("omnicache_request", default=None)


@contextmanager
def request(name: Any) -> Iterator[None]:
    """Calls inside belong to the request ``name``: interleaved requests on one thread keep apart."""
    token = _request.set(name)
    try:
        yield
    finally:
        _request.reset(token)


class Runs:
    """The runs of one session that are in progress: one for each thread or request, and pipeline."""

    def __init__(self, session: Session):
        self._session = session
        self._by_key: dict[Any, Run] = {}
        self.last: Run | None = None
        self.begun = 0
        self._counting = threading.Lock()

    def __iter__(self) -> Iterator[Run]:
        return iter(list(self._by_key.values()))

    def key(self, pipe: Any) -> Any:
        """What runs are kept apart by: the thread or request, and the pipeline."""
        request = _request.get()
        who = threading.get_ident() if request is None else ("request", request)
        return who, id(pipe if pipe is not None else self._session.audience.given)

    def of(self, pipe: Any, call: Call) -> Run:
        """The run that a call belongs to: the current one of this thread or request and pipeline, or a new one."""
        key = self.key(pipe)
        run, clock = self._by_key.get(key), self._clock(key, pipe)
        if run is not None and clock is not None and self._estranged(run, clock, pipe, call):
            clock.strangers.add(key)
            clock = None
        if run is None or self._is_over(run, clock, call):
            if clock is not None and _is_past(clock, pipe, call):
                clock.strangers.add(key)
                clock = None
            run = self._begin(key, clock)
            if clock is not None:
                clock.led = pipe is not None
        return run

    def _clock(self, key: Any, pipe: Any) -> Clock | None:
        """The scheduler's clock. None if another thread's or loop's run is at work there: this one is timed by its timesteps."""
        audience = self._session.audience
        clock = audience.listen(pipe if pipe is not None else audience.given)
        if clock is None or clock.idle or key in clock.strangers or (pipe is None and clock.led):
            return None
        return clock if clock.thread == key[0] or _request.get() is not None else None

    def _estranged(self, run: Run, clock: Clock, pipe: Any, call: Call) -> bool:
        """Whether a run does not follow the clock that it began with."""
        if clock.run != run.clock_run:
            return False
        # A step has gone by that this scheduler did not take: some pipelines step copies of theirs.
        if run.again(clock.taken, call) and not clock.shows(run.start, call.time):
            return True
        # Another scheduler's run after a cancelled one: told by its times, where they can be read without waiting for a device.
        return pipe is None and run.tells and not clock.shows(run.start, call.time_on_host, slack=1)

    def _is_over(self, run: Run, clock: Clock | None, call: Call) -> bool:
        """Whether a call must be of another run than this one, which was the last here."""
        if clock is not run.clock or (clock is not None and clock.run != run.clock_run):
            return True
        if clock is not None:
            return run.at == clock.taken and len(run.here) >= MOST_BRANCHES
        now = call.time
        if run.goes_back(now):
            return True
        if run.now != now:
            return False
        return (run.count == 0 and run.again(0, call)) or call.geometry not in [b.geometry for b in run.branches.values()]

    def _begin(self, key: Any, clock: Clock | None) -> Run:
        before = self._by_key.get(key)
        self.end(key)
        self._drop_cancelled(key)
        run = self.last = self._by_key[key] = self._session.begin(clock)
        with self._counting:
            self.begun += 1
            run.trace.number = self.begun
        run.lone_before = before.lone_before + 1 if before is not None and before.count == 0 else 0
        return run

    def _drop_cancelled(self, key: Any) -> None:
        """A run that begins ends the cancelled ones of its thread: those whose pipeline is not at work further up."""
        mine = [k for k in list(self._by_key) if k[0] == key[0] and isinstance(k[0], int)]
        if mine:
            at_work = {id(pipe) for pipe in callers(self._session.model.model)}
            for k in mine:
                if k[1] not in at_work:
                    self.end(k)

    def end(self, key: Any) -> None:
        run = self._by_key.pop(key, None)
        if run is not None:
            run.explain()
            run.free()
            self.last = run

    def end_all(self) -> None:
        for key in list(self._by_key):
            self.end(key)

    def under(self, clock: Clock) -> Run | None:
        """The run whose step of the moment a scheduler is about to take."""
        return next((r for r in self if r.clock is clock and r.clock_run == clock.run and r.at == clock.taken), None)

    def stepped(self, clock: Clock) -> None:
        """After every scheduler step: a run whose last step is done holds nothing."""
        for key, run in list(self._by_key.items()):
            if run.clock is not clock:
                continue
            run.stepped(clock.handed)
            if run.start is not None and clock.times and run.start + clock.taken >= len(clock.times):
                self.end(key)

    def newest(self) -> Run | None:
        """The newest run of this thread or request, in progress or done."""
        here = self.key(None)[0]
        mine = [run for key, run in list(self._by_key.items()) if key[0] == here]
        return mine[-1] if mine else self.last


def _is_past(clock: Clock, pipe: Any, call: Call) -> bool:
    """Whether a clock that has made steps is past the time of a run's first call: what it counts is another run, cancelled."""
    if clock.taken == 0 or call.time is None:
        return False
    places = clock.places(call.time)
    return max(places) < clock.taken if places else pipe is None
