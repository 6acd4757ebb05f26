"""A comparison that takes long, from its run to its JSON."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from omnicache.cli.common import err


@contextmanager
def resumable() -> Iterator[None]:
    """Ctrl-C ends the command with a sentence: what it has measured is kept."""
    try:
        yield
    except KeyboardInterrupt:
        err.print("Stopped. Nothing that was measured is lost: the same command goes on from here.")
        raise typer.Exit(130) from None


def measured(run: Callable[[], dict[str, Any]], path: Path) -> dict[str, Any]:
    """What ``run`` finds, with the command that asked for it, also as a file. Ctrl-C ends the command with a sentence."""
    with resumable():
        result = run()
    result["command"] = "omnicache " + shlex.join(sys.argv[1:])
    path.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return result
