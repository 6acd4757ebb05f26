from __future__ import annotations

from typing import Annotated

from omnicache.calibrate.stages import calibrate_feb_cache
from omnicache.correctors import NoiseScaling
from omnicache.errors import OmniCacheError
from omnicache.granularity import MLP, Attention
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.predictors import Hold
from omnicache.registry import Choice, Range, method
from omnicache.triggers import Table

RELEASED = "".join("." if 49 - i in (1, 2, 4, 5, 7, 8, *range(9, 28, 2)) else "#" for i in range(50))
"""The released table, for 50 steps of DDPM on DiT-XL/2; it counts steps from the last."""


@method(
    "feb-cache",
    paper="FEB-Cache: Frequency-Guided Exposure Bias Reduction for Diffusion Transformer Caching (arXiv 2503.07120)",
    axes={"when": "by a table of four states", "where": "attention and MLP, apart", "how": "hold", "fix": "noise scaling"},
    architectures="transformers with attention and MLP blocks",
    off={"schedule": "#" * 50, "scaling": "none"},
    calibrate=calibrate_feb_cache,
    sweep={"reuse": (0.2, 0.3, 0.4, 0.5)},
)
def feb_cache(
    schedule: str = RELEASED,
    scaling: Annotated[str, Choice(("paper", "released", "none"))] = "paper",
    early: Annotated[float, Range(0.5, 1.5)] = 0.98,
    late: Annotated[float, Range(0.5, 1.5)] = 0.96,
    theta: Annotated[float, Range(0, 0.99)] = 0.4,
) -> Plan:
    """Reuses attention, MLP, both or neither by a table, and scales the predicted noise down against what reuse adds.

    ``omnicache.calibrate(pipe, inputs, "feb-cache", reuse=0.3)`` makes a table for another model or number of steps.

    Args:
        schedule: one character a step: "#" both are computed, "m" the MLP is reused, "a" attention is, "." both are.
        scaling: "paper" is the curve b(t); "released" divides by 0.965 at every step, as the code does, which makes noise larger;
            "none" leaves it.
        early, late, theta: of the curve, see ``NoiseScaling``.
    """
    if not schedule or set(schedule) - set("#ma."):
        raise OmniCacheError(
            f'feb-cache: option schedule: one of "#", "m", "a" and "." is needed for each step, not {schedule!r}. Make one with '
            'plan = omnicache.calibrate(pipe, inputs, "feb-cache", reuse=0.3), or leave it out for runs of 50 steps.'
        )
    fix = {
        "paper": NoiseScaling(early, late, theta),
        "released": NoiseScaling(factor=1 / 0.965),
        "none": None,
    }[scaling]
    policies = (
        Policy(Table(schedule.replace("m", "#").replace("a", ".")), Attention(), Hold(), fix=fix),
        Policy(Table(schedule.replace("a", "#").replace("m", ".")), MLP(), Hold()),
    )
    options = {"schedule": schedule, "scaling": scaling, "early": early, "late": late, "theta": theta}
    return Plan("feb-cache", policies, options)
