"""TeaCache's curve: how much the output will change, from how much the modulated input did."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

import torch

from omnicache.calibrate.record import Recorder, each_run, watched
from omnicache.granularity import Stack
from omnicache.kernels import relative_change
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.predictors import Hold, Residual
from omnicache.registry import Range
from omnicache.runtime.signals import ModulatedInputChange
from omnicache.runtime.step import Step
from omnicache.triggers import Accumulate


def calibrate_teacache(
    pipe: Any,
    inputs: Sequence[Any],
    call: dict[str, Any],
    progress: bool = True,
    *,
    reuse: Annotated[float, Range(0, 0.98)] = 0.5,
    threshold: Annotated[float | None, Range()] = None,
    degree: Annotated[int, Range(1, 8)] = 4,
) -> Plan:
    """Fit the polynomial of TeaCache (arXiv 2411.19108, eq. 7) to uncached runs.

    The threshold is the one that reuses a share ``reuse`` of the steps of the calibration runs, unless one is given.

    x is the relative L1 change of the first block's modulated input from one step to the next, y that of the model's output.
    """
    from omnicache.methods.teacache import teacache

    signal = ModulatedInputChange()
    changes: list[torch.Tensor | None] = []
    before: dict[Any, torch.Tensor] = {}

    def look(step: Step, truth: torch.Tensor, _: tuple[torch.Tensor, ...]) -> None:
        last, now = before.get(step.branch), truth.detach().float().clone()
        changes.append(relative_change(now, last) if last is not None else None)
        before[step.branch] = now

    recorder = Recorder(look)
    policy = Policy(Accumulate(signal, float("-inf")), Stack(), Residual(Hold()), fix=recorder)
    x: list[float] = []
    y: list[float] = []
    signals: list[list[float | None]] = []
    with watched(pipe, policy) as session:
        for _, run in each_run(pipe, inputs, call, progress, "uncached runs"):
            changes.clear()
            before.clear()
            run()
            records = session.trace.records
            worst = (r.signals.get(signal) for r in records if r.step.branch == records[0].step.branch)
            signals.append([None if w is None else float(w.max()) for w in worst])
            for record, moved in zip(session.trace.records, changes, strict=True):
                change = record.signals.get(signal)
                if change is not None and moved is not None:
                    x.append(float(change.max()))
                    y.append(float(moved.max()))
    xs, ys = torch.tensor(x, dtype=torch.float64), torch.tensor(y, dtype=torch.float64)
    powers = torch.stack([xs**d for d in range(degree, -1, -1)], 1)
    fit = torch.linalg.lstsq(powers, ys[:, None]).solution[:, 0]
    coefficients = tuple(fit.tolist())
    if threshold is None:
        threshold = _threshold(signals, coefficients, reuse)
    plan = teacache(threshold=threshold, coefficients=coefficients)
    error = (powers @ fit - ys).square().mean().sqrt()
    figures = {"pairs": len(x), "change_range": (min(x), max(x)), "fit_error": float(error), "output_change": float(ys.mean())}
    return plan.with_measured(**figures, reuse=_reused(signals, coefficients, threshold))


def _reused(signals: list[list[float | None]], coefficients: tuple[float, ...], threshold: float) -> float:
    """The share of steps that TeaCache would reuse on recorded signals, first and last step computed."""
    reused = total = 0
    for run in signals:
        gathered = 0.0
        for i, change in enumerate(run):
            total += 1
            gathered += sum(c * change**d for d, c in enumerate(reversed(coefficients))) if change is not None else math.inf
            if i in (0, len(run) - 1) or not gathered < threshold:
                gathered = 0.0
            else:
                reused += 1
    return reused / max(total, 1)


def _threshold(signals: list[list[float | None]], coefficients: tuple[float, ...], reuse: float) -> float:
    """The smallest threshold, to a thousandth of the range, that reuses at least ``reuse`` of the steps."""
    low, high = 0.0, 1e-3
    while _reused(signals, coefficients, high) < reuse and high < 1e6:
        low, high = high, 2 * high
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if _reused(signals, coefficients, middle) >= reuse else (middle, high)
    return high
