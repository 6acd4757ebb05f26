from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import omnicache
from omnicache import registry
from omnicache.errors import OmniCacheError
from omnicache.guards import Guards, human_bytes
from omnicache.integrations.pipelines import as_call, split_call
from omnicache.plan import Plan
from omnicache.runtime.clock import Tap


@dataclass(frozen=True)
class Footprint:
    """What a plan will hold.

    Attributes:
        bytes: at the fullest step of a run, over all denoisers, on their device. Where a trigger watches the run, it may come to
            less: a history is counted as full.
        thrift: what has to be given up to stay within the limit, as a sentence; empty if nothing.
    """

    bytes: int
    thrift: str

    def __str__(self) -> str:
        return f"{human_bytes(self.bytes)} at the fullest step." + (f" {self.thrift}" if self.thrift else "")


def footprint(pipe: Any, given: Any, method: str | Path | Plan, guards: Guards | None = None, **options: Any) -> Footprint:
    """What a method will hold in a run of a pipeline: one step of it is run, which shows all sizes.

    Args:
        pipe: a diffusers pipeline.
        given: a keyword dict for ``pipe(...)``, or a string or number for its first argument.
        method: a method's name, a Plan, or the path of a plan file.
        guards: limits to stay within.
        **options: the method's options, and arguments of the pipeline's call (``height=1024``).

    Raises:
        OmniCacheError: the pipeline has no scheduler, or an option is unknown.
    """
    scheduler = getattr(pipe, "scheduler", None)
    if scheduler is None:
        raise OmniCacheError(f"{type(pipe).__name__} has no scheduler, so where its first step ends is not known. Pass a pipeline.")
    named = isinstance(method, str) and not method.endswith(".json")
    known = {o.name for o in registry.get(str(method)).options} if named else set()
    ours, call = split_call(pipe, options, known, str(method) if named else "this plan")
    with omnicache.cache(pipe, method, guards=guards, **ours) as run:
        tap = Tap(scheduler, "step", _stop)
        scheduler.step = tap
        try:
            pipe(**{**call, **as_call(pipe, given, 0)})
        except _Enough:
            pass
        finally:
            tap.remove()
        traces = [session.trace for session in run.sessions]
    return Footprint(sum(t.predicted_bytes for t in traces), " ".join(t.thrift for t in traces if t.thrift))


class _Enough(BaseException):
    """Leaves a pipeline after its first step; no error, so that no pipeline can mistake it for one."""


def _stop(plain: Any, *args: Any, **kwargs: Any) -> Any:
    raise _Enough
