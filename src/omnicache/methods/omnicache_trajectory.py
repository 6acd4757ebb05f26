from __future__ import annotations

from typing import Annotated

from omnicache.calibrate.trajectory import calibrate_trajectory
from omnicache.calibrate.uncached import Uncached
from omnicache.correctors import NoiseCorrection
from omnicache.errors import OmniCacheError
from omnicache.granularity import MLP, Attention, Stack
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.predictors import Hold, Residual
from omnicache.registry import Choice, Range, method
from omnicache.triggers import Table


@method(
    "omnicache-trajectory",
    paper="OmniCache: A Trajectory-Oriented Global Perspective on Training-Free Cache Reuse (ICCV 2025, arXiv 2508.16212)",
    axes={"when": "by a calibrated schedule", "where": "stack", "how": "hold the increment", "fix": "carried noise"},
    architectures="transformers",
    off={"schedule": "#" * 50},
    calibrate=calibrate_trajectory,
    measures=Uncached,
    needs_calibration=True,
    sweep={"reuse": (0.3, 0.4, 0.5, 0.6, 0.7)},
)
def omnicache_trajectory(
    schedule: str = "",
    gamma: tuple[float | None, ...] = (),
    correct: bool = True,
    cutoff: Annotated[float | None, Range(0.01, 10)] = None,
    switch: Annotated[int, Range(0)] = 0,
    channels: Annotated[int | None, Range(1)] = None,
    mask: Annotated[str, Choice(("gaussian", "ideal"))] = "gaussian",
    frames: bool = False,
    granularity: Annotated[str, Choice(("stack", "module"))] = "stack",
) -> Plan:
    """Reuses whole steps by a schedule calibrated on the sampling path, and subtracts the noise that this adds.

    Made by ``omnicache.calibrate(pipe, inputs, "omnicache-trajectory", reuse=0.5)``.

    Args:
        schedule: one character a step, "#" computed and "." reused.
        gamma: per step the number that carries the measured noise to it; None at computed steps.
        correct: False reuses only.
        cutoff: of the band filter on the correction; None for no filter.
        switch: first step of the high-pass.
        mask, frames: the filter's shape, and whether it takes in a video's frames.
        channels: how many leading channels are corrected.
        granularity: "stack" keeps one increment of all blocks; "module" every attention and MLP output, under fresh gates.
    """
    if not schedule or set(schedule) - {"#", "."}:
        raise OmniCacheError(
            "omnicache-trajectory needs a calibrated schedule: "
            'plan = omnicache.calibrate(pipe, inputs, "omnicache-trajectory", reuse=0.5), then omnicache.cache(pipe, plan). '
            "On the command line: omnicache calibrate PIPE --out my.plan.json, then --method my.plan.json."
        )
    if gamma and len(gamma) != len(schedule):
        raise OmniCacheError(
            f"omnicache-trajectory: option gamma: {len(gamma)} numbers do not fit a schedule of {len(schedule)} steps; "
            "one a step is needed, None where it is computed."
        )
    fix = NoiseCorrection(gamma, cutoff, switch, channels, mask, frames) if correct and any(g for g in gamma) else None
    where, how = (Stack(), Residual(Hold())) if granularity == "stack" else (Attention() | MLP(), Hold())
    options = {"schedule": schedule, "gamma": gamma, "correct": correct, "cutoff": cutoff, "switch": switch}
    options |= {"channels": channels, "mask": mask, "frames": frames, "granularity": granularity}
    return Plan("omnicache-trajectory", (Policy(Table(schedule), where, how, fix=fix),), options)
