"""The one exception of the library: every message says what happened, why, and what to type."""

from __future__ import annotations

import difflib
import sys
import warnings
from collections.abc import Iterable

import torch


class OmniCacheError(Exception):
    """Something was asked that cannot be done; nothing has been changed."""


ALIKE = 0.76
"""Share of equal letters from which on a word is taken for a misspelt other one: one wrong letter in five, not in four."""


def nearest(word: str, known: Iterable[str]) -> str:
    """``" Did you mean 'x'?"`` or the empty string, for the end of a message about an unknown name."""
    names = list(known)
    part = [name for name in names if len(word) > 3 and word in name]
    close = difflib.get_close_matches(word, names, n=1, cutoff=ALIKE) or part
    return f" Did you mean {close[0]!r}?" if close else ""


def warn(sentence: str) -> None:
    """A warning that points to the line of the user's that led here, not into a library."""
    libraries = ("omnicache", "torch", "diffusers", "contextlib", "threading")
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).split(".")[0] in libraries:
        level, frame = level + 1, frame.f_back
    warnings.warn(sentence, stacklevel=level)


def is_out_of_memory(problem: BaseException) -> bool:
    """Whether an error says that a device, or the host, has no memory left. Not all backends have a class for it."""
    if isinstance(problem, (MemoryError, getattr(torch, "OutOfMemoryError", torch.cuda.OutOfMemoryError))):
        return True
    said = str(problem).lower()
    return isinstance(problem, RuntimeError) and ("out of memory" in said or "can't allocate memory" in said)


FAILURES = (OmniCacheError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError)
"""What a method raises that does not apply, or breaks. Where many are compared, it is told, and the others go on."""


def failed(broken: Exception) -> str:
    """A failure in a sentence; ours is one."""
    return str(broken) if isinstance(broken, OmniCacheError) else f"It failed with {type(broken).__name__}: {broken}"
