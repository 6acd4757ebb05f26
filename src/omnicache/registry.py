"""The methods by name. Adding a paper is one decorated function that builds a Plan; nothing else needs to know of it."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from omnicache.errors import OmniCacheError, nearest
from omnicache.plan import Plan
from omnicache.policy import Policy


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
        return None if given in self.words else f"{given!r} is none of {', '.join(map(repr, self.words))}"

    def __str__(self) -> str:
        return " | ".join(map(str, self.words))


@dataclass(frozen=True)
class Option:
    """One option of a method."""

    name: str
    default: Any
    allowed: Range | Choice | None
    optional: bool = False
    """Whether None may be given."""


Calibrate = Callable[..., Plan]


@dataclass(frozen=True)
class Method:
    """A registered method.

    Attributes:
        name: as users type it.
        build: the function that makes a Plan from options.
        paper: where it comes from.
        axes: its place on the four axes, in words.
        architectures: where it applies, in words.
        off: options under which it computes everything, or None, with the reason in ``off_reason``.
        calibrate: the function behind ``omnicache.calibrate``, or None.
        needs_calibration: whether it can be used without.
    """

    name: str
    build: Callable[..., Plan]
    summary: str
    paper: str
    axes: Mapping[str, str]
    architectures: str
    off: Mapping[str, Any] | None
    off_reason: str = ""
    calibrate: Calibrate | None = None
    needs_calibration: bool = False

    @property
    def options(self) -> tuple[Option, ...]:
        return options_of(self.build)

    def plan(self, **options: Any) -> Plan:
        """The plan for these options.

        Raises:
            OmniCacheError: an unknown option, or one outside its range.
        """
        only_calibration = (
            {o.name for o in options_of(self.calibrate)} - {o.name for o in self.options} if self.calibrate else set()
        )
        if asked := [o for o in options if o in only_calibration]:
            raise OmniCacheError(
                f"{asked[0]!r} is an option of calibrating {self.name}: plan = omnicache.calibrate(pipe, inputs, {self.name!r}, "
                f"{asked[0]}={options[asked[0]]!r}), then omnicache.cache(pipe, plan)."
            )
        check_options(self.name, self.build, options)
        made: Plan | Policy = self.build(**options)
        return Plan(self.name, (made,), options) if isinstance(made, Policy) else made


METHODS: dict[str, Method] = {}


def method(
    name: str,
    *,
    paper: str = "",
    axes: Mapping[str, str] | None = None,
    architectures: str = "any",
    off: Mapping[str, Any] | None = None,
    off_reason: str = "",
    calibrate: Calibrate | None = None,
    needs_calibration: bool = False,
) -> Callable[[Callable[..., Plan]], Callable[..., Plan]]:
    """Register a function as a method. Its keyword parameters are the options; ``Annotated[int, Range(1)]`` bounds one."""

    def register(build: Callable[..., Plan]) -> Callable[..., Plan]:
        if off is None and not off_reason:
            raise OmniCacheError(f"{name}: say which options switch it off (off=...), or why none do (off_reason=...).")
        known = METHODS.get(name)
        here = (build.__module__, build.__qualname__)
        if known is not None and (known.build.__module__, known.build.__qualname__) != here:
            raise OmniCacheError(f"{known.build.__module__} has a method called {name!r} already. Give yours another name.")
        for parameter in inspect.signature(build).parameters.values():
            if parameter.default is inspect.Parameter.empty:
                raise OmniCacheError(
                    f"{name}: option {parameter.name} needs a default, so that the method can be used by its name."
                )
        summary = (inspect.getdoc(build) or "").split("\n")[0]
        METHODS[name] = Method(
            name, build, summary, paper, dict(axes or {}), architectures, off, off_reason, calibrate, needs_calibration
        )
        return build

    return register


def get(name: str) -> Method:
    """The method of this name.

    Raises:
        OmniCacheError: there is none; the nearest name is in the message.
    """
    if name not in METHODS:
        raise OmniCacheError(f"There is no method {name!r}.{nearest(name, METHODS)} `omnicache methods` lists them all.")
    return METHODS[name]


def options_of(build: Callable[..., Any]) -> tuple[Option, ...]:
    hints = typing.get_type_hints(build, include_extras=True)
    found = []
    for name, parameter in inspect.signature(build).parameters.items():
        hint: Any = hints.get(name)
        notes = hint.__metadata__ if typing.get_origin(hint) is Annotated else ()
        allowed = next((n for n in notes if isinstance(n, (Range, Choice))), None)
        default = None if parameter.default is inspect.Parameter.empty else parameter.default
        inner = typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint
        found.append(Option(name, default, allowed, type(None) in typing.get_args(inner)))
    return tuple(found)


def check_options(what: str, build: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """Refuse unknown options and values outside their range, before anything is changed."""
    known = {o.name: o for o in options_of(build)}
    for name, option in given.items():
        if name not in known:
            listed = f" It has: {', '.join(known)}." if known else " It has none."
            raise OmniCacheError(f"{what} has no option {name!r}.{nearest(name, known)}{listed}")
        allowed, default = known[name].allowed, known[name].default
        if allowed is not None and not (option is None and known[name].optional):
            why = allowed.misfit(option)
            whole = isinstance(allowed, Range) and type(default) is int
            if why is None and whole and isinstance(option, (int, float)) and not float(option).is_integer():
                why = f"a whole number is needed, not {option!r}"
            if why is not None:
                raise OmniCacheError(f"{what}: option {name}: {why}.")
