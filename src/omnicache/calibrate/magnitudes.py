"""MagCache's ratios: how the increment of all blocks grows from step to step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch

from omnicache.calibrate.record import each_run, one_denoiser, watched
from omnicache.errors import OmniCacheError
from omnicache.granularity import Stack
from omnicache.plan import Plan
from omnicache.policy import Entry, History, Policy, Predictor, Tensors
from omnicache.registry import Range
from omnicache.runtime.step import Step
from omnicache.signals import LatentChange
from omnicache.triggers import Accumulate


def calibrate_magcache(
    pipe: Any,
    inputs: Sequence[Any],
    call: dict[str, Any],
    progress: bool = True,
    *,
    reuse: Annotated[float, Range(0, 0.98)] = 0.5,
    threshold: Annotated[float | None, Range(0)] = None,
    longest: Annotated[int, Range(0)] = 4,
    retain: Annotated[float, Range(0, 1)] = 0.2,
) -> Plan:
    """Measure the ratios of MagCache (arXiv 2506.09045) in uncached runs.

    A ratio is the mean over tokens, samples and inputs of the increment's length at a step over its length at the step before. The
    last step's is taken to be that of the one before it. The threshold is the least that reuses a share ``reuse`` of the steps,
    unless one is given.
    """
    from omnicache.methods.magcache import magcache

    found: dict[int, list[float]] = {}

    def tell(step: Step, ratio: torch.Tensor) -> None:
        found.setdefault(step.index, []).append(float(ratio.mean()))

    total = 0
    with watched(pipe, Policy(Accumulate(LatentChange(), float("-inf")), Stack(), _Lengths(tell))) as session:
        for _, run in each_run(pipe, inputs, call, progress, "uncached runs"):
            run()
            total = max(total, max(r.step.index for r in session.trace.records) + 1)
    if total < 5 or not found:
        raise OmniCacheError(
            f"{type(one_denoiser(pipe)).__name__} showed no increments of its blocks in {total} step(s); draw with more steps, or "
            "take a method that needs none, such as taylorseer."
        )
    ratios = [1.0] + [sum(of) / len(of) if (of := found.get(i)) else 1.0 for i in range(1, total)]
    if total - 1 not in found:  # nothing is learned at a step after which nothing is used
        ratios[-1] = ratios[-2]
    if threshold is None:
        threshold = _threshold(tuple(ratios), reuse, longest, retain)
    plan = magcache(ratios=tuple(ratios), threshold=threshold, longest=longest, retain=retain)
    return plan.with_measured(reuse=_share(tuple(ratios), threshold, longest, retain))


@dataclass(frozen=True, eq=False)
class _Lengths(Predictor):
    """Estimates nothing: tells how much longer every increment is than the one before, token by token."""

    tell: Callable[[Step, torch.Tensor], None]
    needs_input = True

    def learn(self, history: History, step: Step, x: Tensors, y: Tensors) -> History:
        now = tuple((b - a if x else b).reshape(-1, b.shape[-1]).norm(dim=-1) for a, b in zip(x or y, y, strict=True))
        if y[-1].ndim < 2:  # no stream of tokens: only the window asks, how many values will be kept
            return (Entry(step, now),)
        if history and [t.shape for t in history[0].tensors] == [t.shape for t in now]:
            self.tell(step, now[-1] / history[0].tensors[-1].clamp_min(1e-12))
        return (Entry(step, now),)


def _share(ratios: tuple[float, ...], threshold: float, longest: int, retain: float) -> float:
    """The share of steps that is reused."""
    from omnicache.methods.magcache import magcache
    from omnicache.runtime.decisions import TriggerState

    state = TriggerState(magcache(ratios=ratios, threshold=threshold, longest=longest, retain=retain).policies[0].when)
    total = len(ratios)
    return sum(state.decide(Step(i, total), {}).value == "." for i in range(total)) / total


def _threshold(ratios: tuple[float, ...], reuse: float, longest: int, retain: float) -> float:
    """The least threshold, to a thousandth of itself, that reuses at least ``reuse`` of the steps, or as many as can be."""
    most = _share(ratios, 1e9, longest, retain)
    low, high = 0.0, 1e-4
    while _share(ratios, high, longest, retain) < min(reuse, most):
        low, high = high, 2 * high
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (low, middle) if _share(ratios, middle, longest, retain) >= min(reuse, most) else (middle, high)
    return high
