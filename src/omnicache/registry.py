"""The methods by name. Adding a paper is one decorated function that builds a Plan; nothing else needs to know of it."""

from __future__ import annotations

import functools
import inspect
import itertools
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from omnicache import schema
from omnicache.errors import OmniCacheError, nearest
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.schema import Choice, Range

__all__ = ["METHODS", "Choice", "Method", "Option", "Range", "calibrated", "check_options", "get", "method", "options_of"]


@dataclass(frozen=True)
class Option:
    """One option of a method."""

    name: str
    default: Any
    allowed: Range | Choice | None
    optional: bool = False
    """Whether None may be given."""
    hint: Any = Any
    """Its annotation, which it is held to: see ``schema.py``."""


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
        presets: options that its paper gives for denoisers of these classes, "FluxTransformer2DModel", or with a number of blocks
            and values of the configuration, "FluxTransformer2DModel/57 in_channels=64"; what the user asks for goes before them.
        sweep: its main knob and the values that a comparison tries, from careful to bold: ``{"interval": (2, 3, 4, 6, 8)}``. Of a
            method that is calibrated, options of the calibration. Empty: a comparison takes it at its defaults.
        slow_to_calibrate: whether calibrating a small model on a CPU takes minutes, so that quick comparisons leave it out.
        measures: ``measures(pipe, inputs, call, progress)`` is what the calibration measures whatever is asked for; handed to it as
            ``measured=``, it serves any number of plans.
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
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    sweep: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    slow_to_calibrate: bool = False
    measures: Callable[..., Any] | None = None

    @property
    def options(self) -> tuple[Option, ...]:
        return options_of(self.build)

    @property
    def settings(self) -> tuple[dict[str, Any], ...]:
        """The options that a comparison tries, one after the other."""
        return tuple(dict(zip(self.sweep, values, strict=True)) for values in itertools.product(*self.sweep.values()))

    def calibrates(self, options: Iterable[str] = ()) -> bool:
        """Whether a plan with these options comes from calibrating."""
        return self.calibrate is not None and set(options) <= {o.name for o in options_of(self.calibrate)}

    def plan_for(self, kinds: Iterable[str], **options: Any) -> Plan:
        """The plan for these denoisers, each in words: the first that has a preset is followed."""
        return self.plan(**{**self.preset_for(kinds), **options})

    def preset_for(self, kinds: Iterable[str]) -> Mapping[str, Any]:
        """The preset all of whose words fit a denoiser; of several the one that says most."""
        fitting = ([key for key in self.presets if set(key.split()) <= set(kind.split())] for kind in kinds)
        return next((self.presets[max(keys, key=len)] for keys in fitting if keys), {})

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
    presets: Mapping[str, Mapping[str, Any]] | None = None,
    sweep: Mapping[str, tuple[Any, ...]] | None = None,
    slow_to_calibrate: bool = False,
    measures: Callable[..., Any] | None = None,
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
        made, measure = _checked(name, build), _checked(f"calibration of {name}", calibrate) if calibrate is not None else None
        entry = METHODS[name] = Method(
            name=name,
            build=made,
            summary=summary,
            paper=paper,
            axes=dict(axes or {}),
            architectures=architectures,
            off=off,
            off_reason=off_reason,
            calibrate=measure,
            needs_calibration=needs_calibration,
            presets=presets or {},
            sweep=sweep or {},
            slow_to_calibrate=slow_to_calibrate,
            measures=measures,
        )
        for kind, preset in (presets or {}).items():
            check_options(f"{name} for {kind}", build, preset)
        for setting in entry.settings:
            asked = calibrate if calibrate is not None and entry.calibrates(setting) else build
            check_options(f"the sweep of {name}", asked, setting)
        return made

    return register


def get(name: str) -> Method:
    """The method of this name.

    Raises:
        OmniCacheError: there is none; the nearest name is in the message.
    """
    if name not in METHODS:
        raise OmniCacheError(f"There is no method {name!r}.{nearest(name, METHODS)} `omnicache methods` lists them all.")
    return METHODS[name]


def calibrated(plan: Plan) -> bool:
    """Whether a plan's numbers come from a calibration, which leaves there what it has measured; a search alone fits none."""
    entries = [METHODS.get(name) for name in plan.method.split("+")]
    return any(e is not None and e.calibrate is not None for e in entries) and bool(plan.measured.keys() - {"tuned"})


def options_of(build: Callable[..., Any]) -> tuple[Option, ...]:
    hints = typing.get_type_hints(build, include_extras=True)
    found = []
    for name, parameter in inspect.signature(build).parameters.items():
        hint = hints.get(name, Any)
        default = None if parameter.default is inspect.Parameter.empty else parameter.default
        found.append(Option(name, default, schema.bound_of(hint), schema.takes_none(hint), hint))
    return tuple(found)


def check_options(what: str, build: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The options as their annotations want them; unknown ones and misfits are refused, before anything is changed."""
    known = {o.name: o for o in options_of(build)}
    for name in given:
        if name not in known:
            listed = f" It has: {', '.join(known)}." if known else " It has none."
            if name == "memory":
                listed = " Memory is limited whatever the method: guards=omnicache.Guards(memory=...)."
            raise OmniCacheError(f"{what} has no option {name!r}.{nearest(name, known)}{listed}")
    return {name: schema.checked(what, name, option, known[name].hint) for name, option in given.items()}


def _checked(what: str, build: Callable[..., Plan]) -> Callable[..., Plan]:
    """The function, with its options held to their annotations also where it is called directly."""

    @functools.wraps(build)
    def call(*args: Any, **options: Any) -> Plan:
        named = inspect.signature(build).bind_partial(*args).arguments
        return build(**check_options(what, build, {**named, **options}))

    return call


def in_words(options: Mapping[str, Any]) -> list[str]:
    """Options as people write them: ``["interval=4", "threshold=0.1"]``."""
    return [f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in options.items()]
