"""How far a long command is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

EVERY = 30.0
"""Seconds between two lines where there is no terminal."""


@contextmanager
def waiting(console: Console) -> Iterator[Callable[[str, int, int, float | None], None]]:
    """A function to call with what is being done, how many of how many parts are done, and the seconds that are left, if known."""
    if not console.is_terminal:
        last = time.monotonic()

        def say(what: str, done: int, total: int, left: float | None) -> None:
            nonlocal last
            if time.monotonic() - last >= EVERY:
                last = time.monotonic()
                console.print(f"{done} of {total}, {time_left(left)}: {what}", soft_wrap=True)

        yield say
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[left]}"))
    with Progress(*columns, console=console, transient=True) as bar:
        row = bar.add_task("", total=None, left="")
        yield lambda what, done, total, left: bar.update(row, description=what, completed=done, total=total, left=time_left(left))


def time_left(seconds: float | None) -> str:
    """In words."""
    if seconds is None:
        return "time left not known yet"
    return f"about {seconds / 60:.0f} min left" if seconds > 90 else f"about {seconds:.0f} s left"
