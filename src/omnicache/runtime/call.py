from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any

import torch

from omnicache.runtime.streams import Args, Signature, tensors_of

TIMES = ("timestep", "timesteps", "t", "sigma", "sigmas", "time", "noise_labels")
CONDITIONS = ("encoder_hidden_states", "class_labels", "context", "prompt_embeds", "y")


class Call:
    """One call of the denoiser: what it was given, and what that tells of the run and the guidance branch it belongs to.

    Args:
        plain: the denoiser's call without a cache.
        args, kwargs: what it was given.
        signature: the names of its arguments.

    Attributes:
        bound: what it was given, by name.
    """

    def __init__(self, plain: Callable[..., Any], args: Args, kwargs: Mapping[str, Any], signature: Signature):
        self.plain, self.args, self.kwargs, self.signature = plain, args, dict(kwargs), signature
        self.bound = signature.bind(args, kwargs)

    def given(self, **others: Any) -> Call:
        """The same call with other values for some of its arguments."""
        args, kwargs = self.args, self.kwargs
        for name, value in others.items():
            args, kwargs = self.signature.replace(args, kwargs, name, value)
        return Call(self.plain, args, kwargs, self.signature)

    def uncached(self) -> Any:
        return self.plain(*self.args, **self.kwargs)

    @cached_property
    def geometry(self) -> tuple[Any, ...]:
        """What a call must share with those that were kept: shapes, dtypes, devices, and modes that are set by flags and words."""
        told: list[Any] = []
        for name, given in self.bound.items():
            if isinstance(given, torch.Tensor):
                told.append((name, given.shape, given.dtype, given.device))
            elif isinstance(given, (bool, str)):
                told.append((name, given))
            elif given is not None:
                told += ((name, t.shape, t.dtype, t.device) for t in tensors_of(given))
        return tuple(told)

    @property
    def latents(self) -> tuple[int, ...]:
        """The shape of what is denoised, without the batch; () if it is not known."""
        return latent_shape(self.bound.values())

    @cached_property
    def time(self) -> float | None:
        """The timestep as a number: the largest, where frames or tokens have their own. May wait for a device."""
        when = self._when
        return _largest(when.tolist()) if isinstance(when, torch.Tensor) else when  # not on the device, which may have no room

    @property
    def time_on_host(self) -> float | None:
        """The same; None if reading it would wait for a device."""
        return None if isinstance(self._when, torch.Tensor) and self._when.device.type != "cpu" else self.time

    @cached_property
    def time_name(self) -> str | None:
        """The name of the argument that is the timestep."""
        others = (n for n in self.bound if n not in TIMES and "timestep" in n and not n.startswith("num"))
        for name in (*TIMES, *others):
            when = self.bound.get(name)
            if isinstance(when, (int, float)) or (isinstance(when, torch.Tensor) and when.numel()):
                return name
        return None

    @cached_property
    def _when(self) -> torch.Tensor | float | None:
        when = self.bound[self.time_name] if self.time_name is not None else None
        return when if when is None or isinstance(when, torch.Tensor) else float(when)

    @cached_property
    def condition(self) -> torch.Tensor | None:
        """What marks a guidance branch."""
        return next((v for n in CONDITIONS if isinstance(v := self.bound.get(n), torch.Tensor)), None)


def latent_shape(given: Iterable[Any]) -> tuple[int, ...]:
    """Of a denoiser's arguments the first tensor of three or more axes, without the batch; () if there is none."""
    return next((tuple(x.shape[1:]) for x in given if isinstance(x, torch.Tensor) and x.ndim > 2), ())


def _largest(numbers: Any) -> float:
    return max(map(_largest, numbers)) if isinstance(numbers, list) else float(numbers)
