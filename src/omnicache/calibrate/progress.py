"""How far a long measurement is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EVERY = 30.0
"""Seconds between two lines where there is no terminal, so that a log tells a long wait from a standstill."""


@contextmanager
def progress(label: str, total: int, show: bool = True) -> Iterator[Callable[[], None]]:
    """A function to call when one of ``total`` parts is done; shows how many, and the time left, on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if show and not (console.is_terminal or console.is_jupyter):
        yield _lines(label, total, console.print)
        return
    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not show, transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda: bar.advance(task)


def _lines(label: str, total: int, say: Callable[[str], None]) -> Callable[[], None]:
    began = last = time.monotonic()
    count = 0

    def done() -> None:
        nonlocal last, count
        count, now = count + 1, time.monotonic()
        if now - last >= EVERY and count < total:
            last = now
            left = (now - began) / count * (total - count)
            time_left = f"{left / 60:.0f} min" if left > 90 else f"{left:.0f} s"
            say(f"{label.strip()}: {count} of {total}, about {time_left} left")

    return done
