"""Which pipelines around a denoiser are cached, which are left out, and the clocks of their schedulers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from weakref import ref

from omnicache.errors import OmniCacheError
from omnicache.plan import Plan
from omnicache.runtime.clock import Clock, Inputs


class Audience:
    """The pipelines that share a denoiser with a plan.

    Args:
        plan: what is done there.
        given: the pipeline whose scheduler is the clock of loops that no pipeline runs; None for a bare denoiser.
        before, after: called around every step of a scheduler that is listened to, see ``Clock.join``.
    """

    def __init__(self, plan: Plan, given: Any, before: Callable[[Clock, Inputs], Inputs], after: Callable[[Clock], None]):
        self.plan, self._before, self._after = plan, before, after
        self._given = ref(given) if given is not None else lambda: None
        self._clocks: dict[int, Clock] = {}  # by the pipeline's id
        self._admitted: dict[int, ref[Any]] = {} if given is None else {id(given): ref(given)}
        self._left_out: dict[int, ref[Any]] = {}

    @property
    def given(self) -> Any:
        return self._given()

    def __bool__(self) -> bool:
        """Whether any scheduler is listened to."""
        return bool(self._clocks)

    def __iter__(self) -> Iterator[tuple[Any, Clock | None]]:
        """The admitted pipelines that are still alive, with their clocks."""
        for known in list(self._admitted.values()):
            if (pipe := known()) is not None:
                yield pipe, self._clocks.get(id(pipe))

    def listen(self, pipe: Any, wanted: bool = False) -> Clock | None:
        """The clock of a pipeline's scheduler of the moment, which is listened to from now on, in place of the one before."""
        key, scheduler = id(pipe), getattr(pipe, "scheduler", None)
        clock = self._clocks.get(key)
        if clock is not None and clock.scheduler is scheduler:
            return clock
        self._hear_no_more(key)
        if scheduler is None or not hasattr(scheduler, "set_timesteps") or not hasattr(scheduler, "step"):
            if wanted and self.plan.steps != 1.0:
                raise OmniCacheError(
                    f"{self.plan.method} thins out a scheduler's steps, and there is none. Pass the pipeline, not its denoiser."
                )
            return None
        if wanted and (why := self.plan.misfit(scheduler)) is not None:
            raise OmniCacheError(f"{self.plan.method}: {why}.")
        clock = self._clocks[key] = Clock.of(scheduler)
        clock.join(self, self.plan.steps, self._before, self._after)
        return clock

    def _hear_no_more(self, key: int) -> None:
        clock = self._clocks.pop(key, None)
        if clock is not None and clock not in self._clocks.values():
            clock.leave(self)

    def admit(self, pipe: Any) -> None:
        """Another pipeline around the same denoiser is to be cached by the same plan."""
        self._left_out.pop(id(pipe), None)
        self._admitted[id(pipe)] = ref(pipe)
        self.listen(pipe, wanted=True)

    def admits(self, pipe: Any) -> bool:
        known = self._admitted.get(id(pipe))
        return known is not None and known() is pipe

    def serves_others(self, pipe: Any) -> bool:
        """Whether this plan was enabled on another pipeline around the same denoiser, too."""
        return id(pipe) in self._admitted and any(r() is not None for k, r in self._admitted.items() if k != id(pipe))

    def leave_out(self, pipe: Any) -> None:
        """From now on runs of this pipeline go uncached, while others around the same denoiser stay as they are."""
        self._admitted.pop(id(pipe), None)
        self._left_out[id(pipe)] = ref(pipe)
        self._hear_no_more(id(pipe))

    def leaves_out(self, pipe: Any) -> bool:
        known = self._left_out.get(id(pipe)) if self._left_out else None
        return known is not None and known() is pipe

    def leave(self) -> None:
        """Stop listening to all schedulers."""
        for key in list(self._clocks):
            self._hear_no_more(key)
