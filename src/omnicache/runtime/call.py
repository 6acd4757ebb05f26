from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import torch

from omnicache.runtime.streams import Args, tensors_of

TIMES = ("timestep", "timesteps", "t", "sigma", "sigmas", "time", "noise_labels")
CONDITIONS = ("encoder_hidden_states", "class_labels", "context", "prompt_embeds", "y")


class Call:
    """One call of the denoiser: what it was given, and what that tells of the run and the guidance branch it belongs to.

    Args:
        plain: the denoiser's call without a cache.
        args, kwargs: what it was given.
        bound: the same by name.
    """

    def __init__(self, plain: Callable[..., Any], args: Args, kwargs: dict[str, Any], bound: Mapping[str, Any]):
        self.plain, self.args, self.kwargs, self.bound = plain, args, kwargs, bound

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
    def _when(self) -> torch.Tensor | float | None:
        others = (n for n in self.bound if n not in TIMES and "timestep" in n and not n.startswith("num"))
        for name in (*TIMES, *others):
            when = self.bound.get(name)
            if isinstance(when, torch.Tensor) and when.numel():
                return when
            if isinstance(when, (int, float)):
                return float(when)
        return None

    @cached_property
    def condition(self) -> torch.Tensor | None:
        """What marks a guidance branch."""
        return next((v for n in CONDITIONS if isinstance(v := self.bound.get(n), torch.Tensor)), None)


def _largest(numbers: Any) -> float:
    return max(map(_largest, numbers)) if isinstance(numbers, list) else float(numbers)
