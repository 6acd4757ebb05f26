"""Runs of a pipeline that begin in the middle: what was computed before is played back, to the bit."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import torch
from torch import nn

from omnicache.calibrate.record import one_denoiser
from omnicache.errors import OmniCacheError
from omnicache.runtime.clock import Tap
from omnicache.runtime.hook import Hook
from omnicache.runtime.store import own
from omnicache.runtime.streams import rebuild, tensors_of


@dataclass
class Recording:
    """One uncached run.

    Attributes:
        call: arguments of the pipeline's call.
        latents: after each step of the scheduler, ``(batch, ...)`` in float32.
        outputs: of each call of the denoiser, with the step that it belongs to.
        before: what other networks of the pipeline gave before the denoiser's first call (text encoders), in order.
    """

    call: Mapping[str, Any]
    latents: list[torch.Tensor] = field(default_factory=list)
    outputs: list[tuple[int, Any]] = field(default_factory=list)
    before: dict[nn.Module, list[Any]] = field(default_factory=dict)


class _Enough(BaseException):
    """Leaves a pipeline when its latents are known; no error, so that no pipeline can mistake it for one."""


class Replay:
    """Records runs of a pipeline, and starts them again at any step.

    The beginning of a restarted run costs nothing but the scheduler's own steps: the denoiser's outputs are played back, so that
    latents, the scheduler's memory of earlier outputs and its noise are what they were. So are the text encoders'. What is
    decoded in the end is left out. Enter it before caching is enabled, and leave it after.
    """

    def __init__(self, pipe: Any):
        self.pipe, self.model = pipe, one_denoiser(pipe)
        parts = getattr(pipe, "components", None)
        found = parts.values() if isinstance(parts, Mapping) else ()
        self._others = [m for m in found if isinstance(m, nn.Module) and m is not self.model]
        self._undo: list[Callable[[], None]] = []
        self._tape = Recording({})
        self._from = 0  # the first step that is computed
        self._stop: int | None = None  # the last one
        self._calls: dict[nn.Module, int] = {}
        self.taken = 0
        """Steps of the scheduler since the run in progress began."""
        self._latents: list[torch.Tensor] = []

    def __enter__(self) -> Replay:
        tap = Tap(self.pipe.scheduler, "step", self._step)
        self.pipe.scheduler.step = tap
        self._undo = [tap.remove, Hook(self.model, self._denoise).remove]
        self._undo += [Hook(m, lambda call, args, kwargs, m=m: self._other(m, call, args, kwargs)).remove for m in self._others]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        for undo in reversed(self._undo):
            undo()

    def record(self, call: Mapping[str, Any]) -> Recording:
        """An uncached run.

        Raises:
            OmniCacheError: the pipeline does not step its own scheduler.
        """
        tape = Recording(call)
        tape.latents = self._run(tape, 0, None)
        if not tape.latents:
            raise OmniCacheError(f"{type(self.pipe).__name__} does not step its scheduler, so its latents are not to be seen.")
        return tape

    def restart(self, tape: Recording, start: int = 0, last: int | None = None) -> list[torch.Tensor]:
        """The latents after steps ``start ... last`` of a run that computes from ``start`` on; ``last`` is its end unless given."""
        return self._run(tape, start, last)

    def _run(self, tape: Recording, start: int, last: int | None) -> list[torch.Tensor]:
        self._tape, self._from, self._stop, self.taken = tape, start, last, 0
        self._calls, self._latents = {}, []
        if last is None and tape.latents:
            self._stop = len(tape.latents) - 1
        call = dict(tape.call)
        if isinstance(call.get("generator"), torch.Generator):
            call["generator"] = call["generator"].clone_state()
        elif isinstance(call.get("generator"), list):
            call["generator"] = [g.clone_state() for g in call["generator"]]
        with torch.no_grad(), contextlib.suppress(_Enough):
            self.pipe(**call)
        latents, self._latents, self._tape = self._latents, [], Recording({})
        return latents

    def _step(self, plain: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        out = plain(*args, **kwargs)
        if self.taken >= self._from:
            after = out[0] if isinstance(out, tuple) else out.prev_sample
            self._latents.append(after.detach().float().clone())
        self.taken += 1
        if self._stop is not None and self.taken > self._stop:
            raise _Enough
        return out

    def _denoise(self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        number = self._calls.get(self.model, 0)
        self._calls[self.model] = number + 1
        known = self._tape.outputs
        if self._stop is None:
            out = call(*args, **kwargs)
            known.append((self.taken, rebuild(out, own(tensors_of(out)))))
            return out
        if self.taken < self._from:
            out = known[number][1]
            return rebuild(out, own(tensors_of(out)))
        return call(*args, **kwargs)

    def _other(self, module: nn.Module, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.model in self._calls:  # what is called within the loop may look at the latents
            return call(*args, **kwargs)
        number = self._calls.get(module, 0)
        self._calls[module] = number + 1
        known = self._tape.before.setdefault(module, [])
        if number == len(known):
            known.append(call(*args, **kwargs))
        return known[number]
