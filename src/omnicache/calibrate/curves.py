"""TeaCache's curve: how much the output will change, from how much the modulated input did."""

from __future__ import annotations

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
    threshold: float = 0.15,
    degree: Annotated[int, Range(1, 8)] = 4,
) -> Plan:
    """Fit the polynomial of TeaCache (arXiv 2411.19108, eq. 7) to uncached runs.

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
    with watched(pipe, policy) as session:
        for _, run in each_run(pipe, inputs, call, progress, "uncached runs"):
            changes.clear()
            before.clear()
            run()
            for record, moved in zip(session.trace.records, changes, strict=True):
                change = record.signals.get(signal)
                if change is not None and moved is not None:
                    x.append(float(change.max()))
                    y.append(float(moved.max()))
    xs, ys = torch.tensor(x, dtype=torch.float64), torch.tensor(y, dtype=torch.float64)
    powers = torch.stack([xs**d for d in range(degree, -1, -1)], 1)
    fit = torch.linalg.lstsq(powers, ys[:, None]).solution[:, 0]
    plan = teacache(threshold=threshold, coefficients=tuple(fit.tolist()))
    residual = (powers @ fit - ys).square().mean().sqrt()
    return plan.with_measured(
        pairs=len(x), change_range=(min(x), max(x)), fit_error=float(residual), output_change=float(ys.mean())
    )
