"""What diffusers' caches are told at every call of a denoiser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from omnicache.measure.peers.scene import Scene
from omnicache.runtime.hook import Hook


class Call:
    """Knows at which timestep and step a call of the denoiser is.

    Attributes:
        context: whether a cache context is set around each call.
    """

    def __init__(self, scene: Scene):
        self.pipe, self.model, self.timestep, self.index, self.context = scene.pipe, scene.denoiser, 0.0, -1, False
        self.hook = Hook(self.model, self._called)

    def _called(self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = kwargs.get("timestep", args[1] if len(args) > 1 else None)
        self.timestep = float(torch.as_tensor(given).flatten()[0])
        self.index += 1
        with self._told():
            return call(*args, **kwargs)

    def _told(self) -> Any:
        if not self.context:
            return nullcontext()
        from diffusers.models.cache_utils import CacheMixin

        total = len(self.pipe.scheduler.timesteps)
        set_context: Any = CacheMixin.cache_context
        return set_context(self.model, "cond", step_index=self.index, sigma=self.sigma, num_inference_steps=total)

    @property
    def sigma(self) -> float:
        """The share of noise in the latents, from 1 to 0."""
        cumulated = getattr(self.pipe.scheduler, "alphas_cumprod", None)
        if cumulated is None or not 0 <= self.timestep < len(cumulated):
            return min(max(self.timestep / 1000, 0.0), 1.0)
        kept = float(cumulated[int(self.timestep)])
        return (1 - kept) ** 0.5 / (kept**0.5 + (1 - kept) ** 0.5)

    @contextmanager
    def run(self) -> Iterator[None]:
        """Around a whole run: what an earlier one has left is forgotten."""
        from diffusers.hooks.hooks import HookRegistry

        self.index = -1
        HookRegistry.check_if_exists_or_initialize(self.model).reset_stateful_hooks(recurse=True)
        yield
