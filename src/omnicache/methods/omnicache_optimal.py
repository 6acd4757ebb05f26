from __future__ import annotations

from omnicache.calibrate.optimal import Course, calibrate_optimal
from omnicache.correctors import Multistep
from omnicache.errors import OmniCacheError
from omnicache.granularity import Denoiser
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.registry import method
from omnicache.triggers import Table


@method(
    "omnicache-optimal",
    axes={"when": "by a shortest path through measured errors", "where": "denoiser", "how": "fitted multistep sums", "fix": "-"},
    architectures="any, in a pipeline with a scheduler",
    off={"schedule": "#" * 50},
    calibrate=calibrate_optimal,
    measures=Course,
    needs_calibration=True,
    sweep={"reuse": (0.25, 0.5, 0.65, 0.8, 0.9)},
)
def omnicache_optimal(schedule: str = "", weights: tuple[tuple[float, ...] | None, ...] = (), sampler: str = "") -> Plan:
    """Computes the steps that tell most, and goes from one to the next by numbers fitted on calibration runs.

    Made by ``omnicache.calibrate(pipe, inputs, "omnicache-optimal", reuse=0.8)``.

    Args:
        schedule: one character a step, "#" computed and "." reused.
        weights: per step the numbers of ``Multistep``; None at computed steps.
        sampler: the scheduler that these were fitted to; with another one the plan is refused.
    """
    if not schedule or set(schedule) - {"#", "."}:
        raise OmniCacheError(
            "omnicache-optimal needs a calibrated schedule: "
            'plan = omnicache.calibrate(pipe, inputs, "omnicache-optimal", reuse=0.8), then omnicache.cache(pipe, plan). '
            "On the command line: omnicache calibrate PIPE -m omnicache-optimal --out my.plan.json, then --method my.plan.json."
        )
    if weights and len(weights) != len(schedule):
        raise OmniCacheError(
            f"omnicache-optimal: option weights: {len(weights)} entries do not fit a schedule of {len(schedule)} steps; one a step "
            "is needed, None where it is computed."
        )
    fix = Multistep(weights, sampler) if any(weights) else None
    options = {"schedule": schedule, "weights": weights, "sampler": sampler}
    return Plan("omnicache-optimal", (Policy(Table(schedule), Denoiser(), fix=fix),), options)
