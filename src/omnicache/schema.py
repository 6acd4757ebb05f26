"""What a value may be, from its annotation: for options of methods, fields of values, and plan files alike.

``Annotated[int, Range(1)]`` bounds a number, ``Annotated[str, Choice(("l1", "l2"))]`` a word.
"""

from __future__ import annotations

import sys
import types
import typing
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

from omnicache.errors import OmniCacheError, nearest


class Misfit(ValueError):
    """Why a value is none of those that an annotation allows, without the final full stop."""


@dataclass(frozen=True)
class Range:
    """Bounds of a number, both ends allowed; None is no bound."""

    low: float | None = None
    high: float | None = None

    def misfit(self, given: Any) -> str | None:
        if isinstance(given, bool) or not isinstance(given, (int, float)):
            return f"a number is needed, not {given!r}"
        if given != given or (self.low is not None and given < self.low) or (self.high is not None and given > self.high):
            return f"{given!r} is outside {self}"
        return None

    def __str__(self) -> str:
        low = "-inf" if self.low is None else f"{self.low:g}"
        high = "inf" if self.high is None else f"{self.high:g}"
        return f"[{low}, {high}]"


@dataclass(frozen=True)
class Choice:
    """One of a few words."""

    words: tuple[Any, ...]

    def misfit(self, given: Any) -> str | None:
        if given in self.words:
            return None
        near = nearest(given.lower(), [w for w in self.words if isinstance(w, str)]) if isinstance(given, str) else ""
        return f"{given!r} is none of {', '.join(map(repr, self.words))}" + (f".{near}" if near else "")

    def __str__(self) -> str:
        return " | ".join(map(str, self.words))


def fit(given: Any, hint: Any) -> Any:
    """The value as ``hint`` wants it: a whole float is an int where one is wanted, a list a tuple. What a hint says beyond
    numbers, words, tuples, classes and their unions is not looked at.

    Raises:
        Misfit: it is none of those that are allowed.
    """
    hint, bounds = _bare(hint)
    if given is not None or not takes_none(hint):
        for bound in bounds:
            if (why := bound.misfit(given)) is not None:
                raise Misfit(why)
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _one_of(given, inner)
    if origin is Literal:
        return fit(given, Annotated[Any, Choice(inner)])
    if hint in (int, float):
        return _number(given, whole=hint is int)
    if hint is tuple or origin is tuple:
        return _tuple(given, inner)
    kind = type(None) if hint is None else origin or hint
    if isinstance(kind, type) and not _is(given, kind):
        meant = f". Write {given.__name__}()" if isinstance(given, type) and issubclass(given, kind) else ""
        raise Misfit(f"{words(hint)} is needed, not {given!r}{meant}")
    return given


def takes_none(hint: Any) -> bool:
    """Whether None may be given."""
    hint, _ = _bare(hint)
    return hint is None or hint is type(None) or type(None) in typing.get_args(hint)


def bound_of(hint: Any) -> Range | Choice | None:
    """The first bound that an annotation carries."""
    return next(iter(_bare(hint)[1]), None)


def settle(made: Any) -> None:
    """Fit every field of a new frozen dataclass to its annotation, in place.

    Raises:
        OmniCacheError: one does not fit.
    """
    try:
        hints = typing.get_type_hints(type(made), include_extras=True)
    except NameError:  # a class made inside a function may name what only that function knows
        return
    for f in fields(made):
        if f.init and f.name in hints:
            object.__setattr__(made, f.name, checked(type(made).__name__, f.name, getattr(made, f.name), hints[f.name]))


def checked(owner: str, name: str, given: Any, hint: Any) -> Any:
    """``fit``, with an error for people that says whose option did not fit."""
    try:
        return fit(given, hint)
    except Misfit as why:
        raise OmniCacheError(f"{owner}: option {name}: {why}{'' if str(why).endswith('?') else '.'}") from None


def words(hint: Any) -> str:
    """What is wanted, in words: "a whole number or None"."""
    hint, _ = _bare(hint)
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(words, inner))
    if origin is tuple and inner:
        return "a list" if len(inner) == 2 and inner[1] is ... else f"a list of {len(inner)}"
    known = {int: "a whole number", float: "a number", bool: "True or False", str: "a word", tuple: "a list", type(None): "None"}
    if hint is None or hint in known:
        return known[hint or type(None)]
    name = getattr(origin or hint, "__name__", str(hint))
    return f"{'an' if name[:1] in 'AEIOU' else 'a'} {name}"


def _bare(hint: Any) -> tuple[Any, list[Range | Choice]]:
    if typing.get_origin(hint) is not Annotated:
        return hint, []
    return hint.__origin__, [n for n in hint.__metadata__ if isinstance(n, (Range, Choice))]


def _is(given: Any, kind: type) -> bool:
    try:
        return isinstance(given, kind)
    except TypeError:  # Any and some protocols cannot be asked
        return True


def _one_of(given: Any, hints: tuple[Any, ...]) -> Any:
    if given is None and type(None) in hints:
        return None
    others = [h for h in hints if h is not type(None)]
    if len(others) == 1:
        return fit(given, others[0])
    for hint in sorted(others, key=lambda h: _bare(h)[0] is not type(given)):  # as it is, before anything is converted
        try:
            return fit(given, hint)
        except Misfit:
            continue
    raise Misfit(f"{' or '.join(map(words, hints))} is needed, not {given!r}")


def _number(given: Any, whole: bool) -> int | float:
    if isinstance(given, bool) or not isinstance(given, (int, float)) or given != given:
        raise Misfit(f"a number is needed, not {given!r}")
    if isinstance(given, int) and abs(given) > sys.float_info.max:
        raise Misfit("a number is needed that a computer can work with, not one of hundreds of digits")
    if whole and isinstance(given, float):
        if not given.is_integer():
            raise Misfit(f"a whole number is needed, not {given!r}")
        return int(given)
    return given


def _tuple(given: Any, inner: tuple[Any, ...]) -> tuple[Any, ...]:
    if not isinstance(given, (tuple, list)):
        raise Misfit(f"a list is needed, not {given!r}")
    if not inner:
        return tuple(given)
    each = inner[:1] * len(given) if inner[-1] is ... else inner
    if len(each) != len(given):
        raise Misfit(f"a list of {len(each)} is needed, not one of {len(given)}")
    return tuple(fit(g, h) for g, h in zip(given, each, strict=True))
