from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import torch

from omnicache.calibrate.record import one_denoiser
from omnicache.errors import OmniCacheError
from omnicache.runtime.clock import Tap
from omnicache.runtime.hook import Hook
from omnicache.runtime.streams import Args

Answer = Callable[[int, int, Callable[[], Any]], Any]
"""What answers for the denoiser: ``(step, call of the step, evaluate)``. ``evaluate()`` runs the denoiser on what it was given."""


class Loop:
    """A pipeline's own sampling loop, in which something else answers for the denoiser.

    So a fit sees what the pipeline really gives its denoiser, conditions and guidance included, and works with any scheduler.
    Hooks are there during a run only.

    Attributes:
        total: evaluations of the denoiser's steps in a run; 0 before the first one has ended.
    """

    def __init__(self, pipe: Any):
        self.pipe, self.model = pipe, one_denoiser(pipe)
        self.total = 0
        self._answer: Answer | None = None
        self._step = self._calls = 0

    def measure(self, call: Mapping[str, Any]) -> int:
        """The number of steps of a run, from one that changes nothing."""
        self.run(call, lambda step, number, evaluate: evaluate())
        return self.total

    def run(self, call: Mapping[str, Any], answer: Answer) -> None:
        """One run. From the second one on it ends with the last step, before anything is decoded.

        Raises:
            OmniCacheError: the pipeline does not step its own scheduler.
        """
        self._answer, self._step, self._calls = answer, 0, 0
        tap = Tap(self.pipe.scheduler, "step", self._stepped)
        self.pipe.scheduler.step = tap
        hook = Hook(self.model, self._denoise)
        try:
            with torch.no_grad(), contextlib.suppress(_Enough):
                self.pipe(**call)
        finally:
            hook.remove()
            tap.remove()
            self._answer = None
        if not self._step:
            raise OmniCacheError(f"{type(self.pipe).__name__} does not step its scheduler, so its steps are not to be seen.")
        self.total = self._step

    def _denoise(self, call: Callable[..., Any], args: Args, kwargs: dict[str, Any]) -> Any:
        assert self._answer is not None
        number, self._calls = self._calls, self._calls + 1
        return self._answer(self._step, number, lambda: call(*args, **kwargs))

    def _stepped(self, plain: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        out = plain(*args, **kwargs)
        self._step, self._calls = self._step + 1, 0
        if self._step == self.total:
            raise _Enough
        return out


class _Enough(BaseException):
    """Leaves a pipeline after its last step; no error, so that no pipeline can mistake it for one."""


def redrawn(call: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The same call with other noise, if it was given generators."""
    held = call.get("generator")
    if isinstance(held, torch.Generator):
        return {**call, "generator": _seeded(held, seed)}
    if isinstance(held, list):
        return {**call, "generator": [_seeded(g, 1009 * seed + i) for i, g in enumerate(held)]}
    return dict(call)


def _seeded(like: torch.Generator, seed: int) -> torch.Generator:
    return torch.Generator(like.device).manual_seed(seed)
