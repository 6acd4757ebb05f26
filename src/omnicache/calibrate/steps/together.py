from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextvars import ContextVar, copy_context
from queue import SimpleQueue
from typing import Any

from omnicache.errors import OmniCacheError

_ask: ContextVar[Callable[[Any], Any]] = ContextVar("ask")


class _Leave(BaseException):
    """Ends a job whose fellows have failed; no error, so that no pipeline can mistake it for one."""


def ask(value: Any) -> Any:
    """Inside a job: hand in a value, wait until all others have, and get the answer to all of them."""
    return _ask.get()(value)


def together(jobs: Sequence[Callable[[], Any]], answer: Callable[[list[Any]], Any]) -> None:
    """Run jobs up to where each of them asks, answer all at once, and so on to their end.

    Each job has a thread, but only one of them runs at a time, in their order: they take turns, as coroutines do, and nothing that
    they share must stand two at once.

    Raises:
        OmniCacheError: some have ended while others still ask. What a job raises is raised here.
    """
    turn = [SimpleQueue[Any]() for _ in jobs]
    told: SimpleQueue[tuple[bool, Any]] = SimpleQueue()  # whether a job has ended, and its value or error

    def work(number: int) -> None:
        def asking(value: Any) -> Any:
            told.put((False, value))
            found = turn[number].get()
            if found is _Leave:
                raise _Leave
            return found

        _ask.set(asking)
        if turn[number].get() is _Leave:
            return
        problem = None
        try:
            jobs[number]()
        except BaseException as error:  # goes to the thread that waits
            problem = error
        told.put((True, problem))

    threads = [threading.Thread(target=copy_context().run, args=(work, i), daemon=True) for i in range(len(jobs))]
    for thread in threads:
        thread.start()
    found: Any = None
    waiting: set[int] = set(range(len(jobs)))
    try:
        while True:
            values = []
            for i in range(len(jobs)):
                turn[i].put(found)
                ended, value = told.get()
                if ended:
                    waiting.discard(i)
                    if value is not None:
                        raise value
                else:
                    values.append(value)
            if not waiting:
                return
            if len(values) < len(jobs):
                raise OmniCacheError("The inputs take different numbers of steps; calibrate on inputs that are alike.")
            found = answer(values)
    finally:
        for i in waiting:
            turn[i].put(_Leave)
        for thread in threads:
            thread.join()
