"""The one clock: reads where a run stands from the scheduler, or from the timesteps themselves where there is none."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple
from weakref import WeakKeyDictionary, WeakMethod, ref

import torch


class Tap:
    """A bound method with something done before and after it. Copies and pickles of the owner get the plain method."""

    def __init__(self, owner: Any, name: str, around: Callable[..., Any]):
        self._owner, self._name, self._around = owner, name, around
        self._before = owner.__dict__.get(name)
        self.plain = getattr(owner, name)
        functools.update_wrapper(self, self.plain, updated=())

    def remove(self) -> None:
        """Put back what stood there before, if it is still this that stands there."""
        if self._owner.__dict__.get(self._name) is self:
            del self._owner.__dict__[self._name]
            if self._before is not None:
                self._owner.__dict__[self._name] = self._before

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._around(self.plain, *args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return getattr(type(self._owner), self._name).__get__(memo.get(id(self._owner), self._owner))

    def __reduce__(self) -> Any:
        return getattr, (self._owner, self._name)


class Listener(NamedTuple):
    """What one session wants of a scheduler: see ``Clock.join``."""

    share: float
    before: WeakMethod[Callable[[Clock, Inputs], Inputs]]
    after: WeakMethod[Callable[[Clock], None]]


Inputs = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and named arguments."""


class Clock:
    """Reads the steps of one scheduler instance, by tapping its ``set_timesteps`` and ``step``.

    Sessions on one scheduler share a clock: ``Clock.of(scheduler)`` gives it, ``join`` and ``leave`` count them, and the last
    one to leave takes the taps away. A listener's ``share`` below 1 makes every ``set_timesteps(n)`` ask for
    ``round(share * n)`` steps: the ``fewer-steps`` reference.
    """

    _all: ClassVar[WeakKeyDictionary[Any, Clock]] = WeakKeyDictionary()

    def __init__(self, scheduler: Any):
        self._scheduler = ref(scheduler)  # weak: the table of all clocks must not keep it alive
        self.run = 0  # grows with every set_timesteps
        self.taken = 0  # scheduler steps since then
        self.began = 0  # at which of its times that run began, as far as is known
        self.thread: int | None = None  # the thread that set the timesteps
        self.led = False  # whether a pipeline makes the steps, and not a bare loop
        self.strangers: set[Any] = set()  # threads and requests that were seen not to follow it since then
        self.times: list[float] = []
        self.sigmas: list[float] = []
        self.flow = "Flow" in type(scheduler).__name__ or _setting(scheduler, "prediction_type") == "flow_prediction"
        self._listeners: WeakKeyDictionary[Any, Listener] = WeakKeyDictionary()
        self.handed: torch.Tensor | None = None  # the output that the scheduler steps by, while listeners are told of the step

    @classmethod
    def of(cls, scheduler: Any) -> Clock:
        found = cls._all.get(scheduler)
        if found is None:
            found = cls._all[scheduler] = cls(scheduler)
        return found

    @property
    def scheduler(self) -> Any:
        return self._scheduler()

    @property
    def span(self) -> float:
        """The time of pure noise."""
        return float(getattr(getattr(self.scheduler, "config", None), "num_train_timesteps", 1000))

    def join(
        self,
        listener: Any,
        share: float,
        before: Callable[[Clock, Inputs], Inputs],
        after: Callable[[Clock], None],
    ) -> None:
        """``before`` every step of the scheduler its arguments may be exchanged, and ``after`` it its listeners are told."""
        if not self._listeners:
            for name, around in (("set_timesteps", self._set_timesteps), ("step", self._step)):
                setattr(self.scheduler, name, Tap(self.scheduler, name, around))
            if getattr(self.scheduler, "num_inference_steps", None):
                self.thread = threading.get_ident()
                self._read()
        self._listeners[listener] = Listener(share, WeakMethod(before), WeakMethod(after))

    def leave(self, listener: Any) -> None:
        if self._listeners.pop(listener, None) is not None and not self._listeners:
            self._all.pop(self.scheduler, None)  # it holds its scheduler, and what it knew is old once it stops listening
            for name in ("set_timesteps", "step"):
                if isinstance(tap := self.scheduler.__dict__.get(name), Tap):
                    tap.remove()

    def _set_timesteps(self, plain: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        share = min((one.share for one in self._listeners.values()), default=1.0)
        if share != 1.0:
            args, kwargs = _fewer(share, args, kwargs)
        out = plain(*args, **kwargs)
        self.run, self.taken, self.began, self.thread = self.run + 1, 0, 0, threading.get_ident()
        self.strangers.clear()
        self.led = False
        self._read()
        return out

    def _read(self) -> None:
        def numbers(name: str) -> list[float]:
            values = getattr(self.scheduler, name, None)
            if values is not None and hasattr(values, "tolist"):
                values = values.tolist()
            return [float(v) for v in values] if isinstance(values, (list, tuple)) else []

        self.times, self.sigmas = numbers("timesteps"), numbers("sigmas")
        if not self.sigmas and isinstance(alphas := getattr(self.scheduler, "alphas_cumprod", None), torch.Tensor):
            at = [min(max(int(t), 0), len(alphas) - 1) for t in self.times]
            self.sigmas = [float(((1 - alphas[i]) / alphas[i].clamp_min(1e-12)) ** 0.5) for i in at]

    def _step(self, plain: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        for one in list(self._listeners.values()):
            if (asked := one.before()) is not None:
                args, kwargs = asked(self, (args, kwargs))
        out = plain(*args, **kwargs)
        self.taken += 1
        handed = args[0] if args else kwargs.get("model_output")
        self.handed = handed if isinstance(handed, torch.Tensor) else None
        try:
            for one in list(self._listeners.values()):
                if (told := one.after()) is not None:
                    told(self)
        finally:
            self.handed = None
        return out

    @property
    def idle(self) -> bool:
        """True after the last step of a run, until timesteps are set anew."""
        return bool(self.times) and self.began + self.taken >= len(self.times)

    def shows(self, start: int | None, time: float | None, slack: int = 0) -> bool:
        """Whether ``time`` is that of the present step, as far as is known, of a run that began at ``start``.

        So many steps of ``slack`` are let pass: where a time is listed twice, the start may have been taken one too early.
        """
        at = (start or 0) + self.taken
        near = self.times[at : at + slack + 1]
        return time is None or at >= len(self.times) or any(_near(t, time) for t in near)

    def places(self, time: float) -> list[int]:
        """Indices at which ``time`` is listed, the likeliest first."""
        fits = [i for i, t in enumerate(self.times) if _same(t, time)]
        if not fits:  # half precision rounds times
            fits = sorted((i for i, t in enumerate(self.times) if _near(t, time)), key=lambda i: abs(self.times[i] - time))
        return fits

    def place(self, time: float | None) -> int:
        """Index of ``time`` among the run's timesteps; 0 when unknown. Image-to-image starts in the middle.

        Where a time stands there twice (Heun), the scheduler's own ``begin_index`` tells which is meant.
        """
        fits = self.places(time) if time is not None else []
        begin = getattr(self.scheduler, "begin_index", None)
        return begin if begin in fits else (fits or [0])[0]


def _setting(scheduler: Any, name: str) -> Any:
    return getattr(getattr(scheduler, "config", None), name, None)


def _same(listed: float, given: float) -> bool:
    """Whether a model that is given this time is at that listed timestep; some pipelines hand it t / 1000."""
    return abs(listed - given) < 1e-4 or abs(listed / 1000 - given) < 1e-7


def _near(listed: float, given: float) -> bool:
    """The same up to the rounding of bfloat16, which keeps eight bits."""
    return min(abs(listed - given), abs(listed - 1000 * given)) <= abs(listed) / 256 + 1e-7


def _fewer(share: float, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if args and isinstance(args[0], int):
        return (max(1, round(args[0] * share)), *args[1:]), kwargs
    if isinstance(kwargs.get("num_inference_steps"), int):
        return args, {**kwargs, "num_inference_steps": max(1, round(kwargs["num_inference_steps"] * share))}
    sigmas = kwargs.get("sigmas")
    if sigmas is not None and len(sigmas) > 1:  # a curve that the pipeline worked out itself: the same, read at fewer points
        count = max(1, round(len(sigmas) * share))
        curve = torch.as_tensor(sigmas, dtype=torch.float64)
        thin = torch.nn.functional.interpolate(curve[None, None], count, mode="linear", align_corners=True)[0, 0]
        return args, {**kwargs, "sigmas": type(sigmas)(thin.tolist()) if isinstance(sigmas, (list, tuple)) else thin.numpy()}
    return args, kwargs  # explicit timesteps: the caller's own list is not ours to thin out
