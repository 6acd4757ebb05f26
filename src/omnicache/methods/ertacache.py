from __future__ import annotations

from typing import Annotated

from omnicache.calibrate.errors_of_reuse import calibrate_ertacache
from omnicache.correctors import InTurn, Rectify, StepSizes
from omnicache.errors import OmniCacheError
from omnicache.granularity import Denoiser
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.predictors import Hold, Residual
from omnicache.registry import Range, method
from omnicache.triggers import Table

Numbers = tuple[float, ...]


@method(
    "ertacache",
    paper="ERTACache: Error Rectification and Timesteps Adjustment for Efficient Diffusion (arXiv 2508.21091)",
    axes={
        "when": "by a calibrated schedule",
        "where": "denoiser",
        "how": "hold the increment",
        "fix": "affine error, step sizes",
    },
    architectures="any; step sizes on Euler flow samplers",
    off={"schedule": "#" * 50},
    calibrate=calibrate_ertacache,
    needs_calibration=True,
    sweep={"threshold": (0.05, 0.1, 0.2, 0.4)},
)
def ertacache(
    schedule: str = "",
    slope: tuple[Numbers | None, ...] = (),
    offset: tuple[Numbers | None, ...] = (),
    phi: tuple[Annotated[float, Range(0, 1)] | None, ...] = (),
) -> Plan:
    """Reuses what the model adds to its latents at calibrated steps, subtracts the error expected of that, and takes shorter steps.

    Made by ``omnicache.calibrate(pipe, inputs, "ertacache", threshold=0.1)``.

    Args:
        schedule: one character a step, "#" computed and "." reused.
        slope, offset: of the expected error, ``slope * output + offset``: per step one number or one for each channel, None for no
            error. Empty for no rectification.
        phi: per step the share of the scheduler's step that is taken, None for all of it. Empty for the scheduler's own steps.
    """
    if not schedule or set(schedule) - {"#", "."}:
        raise OmniCacheError(
            "ertacache needs a calibrated schedule: "
            'plan = omnicache.calibrate(pipe, inputs, "ertacache", threshold=0.1), then omnicache.cache(pipe, plan). '
            "On the command line: omnicache calibrate PIPE -m ertacache --out my.plan.json, then --method my.plan.json."
        )
    for name, table in (("slope", slope), ("offset", offset), ("phi", phi)):
        if table and len(table) != len(schedule):
            raise OmniCacheError(
                f"ertacache: option {name}: {len(table)} entries do not fit a schedule of {len(schedule)} steps; one a step is "
                "needed, None where it is computed."
            )
    if bool(slope) != bool(offset):
        raise OmniCacheError("ertacache: slope and offset of the error go together; give both or neither.")
    repairs = [Rectify(slope, offset)] * bool(slope) + [StepSizes(phi)] * any(p is not None for p in phi)
    fix = InTurn(*repairs) if len(repairs) == 2 else next(iter(repairs), None)
    policy = Policy(Table(schedule), Denoiser(), Residual(Hold()), fix=fix)
    return Plan("ertacache", (policy,), {"schedule": schedule, "slope": slope, "offset": offset, "phi": phi})
