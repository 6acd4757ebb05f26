"""TeaCache's curve: how much the output will change, from how much the modulated input did."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

import torch

from omnicache.calibrate.record import Onlooker, each_run, one_denoiser, watched
from omnicache.errors import OmniCacheError
from omnicache.granularity import Stack
from omnicache.kernels import relative_change
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.predictors import Hold, Residual
from omnicache.registry import Range
from omnicache.runtime.step import Step
from omnicache.signals import ModulatedInputChange
from omnicache.triggers import Accumulate


def calibrate_teacache(
    pipe: Any,
    inputs: Sequence[Any],
    call: dict[str, Any],
    progress: bool = True,
    *,
    reuse: Annotated[float, Range(0, 0.98)] = 0.5,
    threshold: float | None = None,
    degree: Annotated[int | None, Range(1, 8)] = None,
) -> Plan:
    """Fit the polynomial of TeaCache (arXiv 2411.19108, eq. 7) to uncached runs.

    x is the relative L1 change of the first block's modulated input from one step to the next, y that of the model's output.

    Args:
        reuse: share of the steps of the calibration runs that the plan's threshold reuses.
        threshold: a threshold to take instead.
        degree: of the polynomial. None takes the one from 1 to the paper's 4 that best predicts an input left out of the fit: on
            few runs a high degree follows their noise and swings wildly between their points.
    """
    from omnicache.methods.teacache import teacache

    signal = ModulatedInputChange()
    changes: list[torch.Tensor | None] = []
    before: dict[Any, torch.Tensor] = {}

    def look(step: Step, truth: torch.Tensor, _: tuple[torch.Tensor, ...]) -> None:
        last, now = before.get(step.branch), truth.detach().float().clone()
        changes.append(relative_change(now, last) if last is not None else None)
        before[step.branch] = now

    recorder = Onlooker(look)
    policy = Policy(Accumulate(signal, float("-inf")), Stack(), Residual(Hold()), fix=recorder)
    pairs: list[torch.Tensor] = []  # one (n, 2) tensor a run
    signals: list[list[float | None]] = []
    with watched(pipe, policy) as session:
        for _, run in each_run(pipe, inputs, call, progress, "uncached runs"):
            changes.clear()
            before.clear()
            run()
            records = session.trace.records
            worst = (r.signals.get(signal) for r in records if r.step.branch == records[0].step.branch)
            signals.append([None if w is None else float(w.max()) for w in worst])
            both = ((r.signals.get(signal), moved) for r, moved in zip(records, changes, strict=True))
            found = [(float(c.max()), float(m.max())) for c, m in both if c is not None and m is not None]
            pairs.append(torch.tensor(found, dtype=torch.float64).reshape(-1, 2))
    _enough(one_denoiser(pipe), signals, pairs)
    everything = torch.cat(pairs)
    if degree is None:
        degree = min(range(1, 5), key=lambda d: _left_out_error(pairs, d)) if len(pairs) > 1 else 1
    fit = _fit(everything, degree)
    coefficients = tuple(fit.tolist())
    if threshold is None:
        threshold = _threshold(signals, coefficients, reuse)
    plan = teacache(threshold=threshold, coefficients=coefficients)
    error = (_value(fit, everything[:, 0]) - everything[:, 1]).square().mean().sqrt()
    low, high = everything[:, 0].aminmax()
    figures = {"pairs": len(everything), "degree": degree, "change_range": (float(low), float(high)), "fit_error": float(error)}
    figures |= {"output_change": float(everything[:, 1].mean()), "reuse": _reused(signals, coefficients, threshold)}
    return plan.with_measured(**figures)


def _enough(model: torch.nn.Module, signals: list[list[float | None]], pairs: list[torch.Tensor]) -> None:
    """Raise OmniCacheError where no curve can be fitted."""
    steps = max(map(len, signals))
    if steps < 3:
        raise OmniCacheError(f"{steps} step(s) are too few: the first and the last are computed anyway. Draw with more.")
    if not any(map(len, pairs)):
        raise OmniCacheError(
            f"{type(model).__name__} shows no modulated input at its first block (a norm that takes the time), which teacache "
            "watches. Take a method that watches nothing, such as taylorseer."
        )


def _fit(pairs: torch.Tensor, degree: int) -> torch.Tensor:
    """Least-squares coefficients, highest degree first, of pairs ``(n, 2)``; x is scaled to 1 so that powers stay apart."""
    scale = pairs[:, 0].abs().max().clamp_min(1e-12)
    powers = torch.stack([(pairs[:, 0] / scale) ** d for d in range(degree, -1, -1)], 1)
    scaled = torch.linalg.lstsq(powers, pairs[:, 1:]).solution[:, 0]
    return scaled / scale ** torch.arange(degree, -1, -1, dtype=torch.float64)


def _value(coefficients: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    total = torch.zeros_like(x)
    for c in coefficients:
        total = total * x + c
    return total


def _left_out_error(runs: list[torch.Tensor], degree: int) -> float:
    """Mean squared error on each run of a fit to the others."""
    errors = []
    for i, run in enumerate(runs):
        others = torch.cat([r for j, r in enumerate(runs) if j != i])
        errors.append((_value(_fit(others, degree), run[:, 0]) - run[:, 1]).square().mean())
    return float(torch.stack(errors).mean())


def _reused(signals: list[list[float | None]], coefficients: tuple[float, ...], threshold: float) -> float:
    """The share of steps that TeaCache would reuse on recorded signals, first and last step computed."""
    reused = total = 0
    for run in signals:
        gathered = 0.0
        for i, change in enumerate(run):
            total += 1
            gathered += max(sum(c * change**d for d, c in enumerate(reversed(coefficients))), 0) if change is not None else math.inf
            if i in (0, len(run) - 1) or not gathered < threshold:
                gathered = 0.0
            else:
                reused += 1
    return reused / max(total, 1)


def _threshold(signals: list[list[float | None]], coefficients: tuple[float, ...], reuse: float) -> float:
    """A thousandth more than the smallest threshold that reuses at least ``reuse`` of the steps: rounding must not undo it."""
    low, high = 0.0, 1e-3
    while _reused(signals, coefficients, high) < reuse and high < 1e6:
        low, high = high, 2 * high
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if _reused(signals, coefficients, middle) >= reuse else (middle, high)
    return 1.001 * high
