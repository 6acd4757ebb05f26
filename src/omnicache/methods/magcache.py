from __future__ import annotations

from typing import Annotated

from omnicache.calibrate.magnitudes import calibrate_magcache
from omnicache.errors import OmniCacheError
from omnicache.granularity import Stack
from omnicache.methods._released import presets, released, settled
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.predictors import Hold, Residual
from omnicache.registry import Choice, Range, method
from omnicache.triggers import Between, First, Magnitudes, Steps
from omnicache.triggers.magnitudes import Ratio
from omnicache.triggers.steps import Index

RELEASED = released("magcache")
PLAIN = {"ratios": (), "threshold": 0.12, "longest": 4, "retain": 0.2, "forced": (), "strict": False}


@method(
    "magcache",
    paper="MagCache: Fast Video Generation with Magnitude-Aware Cache (arXiv 2506.09045)",
    axes={"when": "calibrated drift of the increment's length", "where": "stack", "how": "hold the increment", "fix": "-"},
    architectures="transformers",
    off={"ratios": (1.0,), "longest": 0},
    calibrate=calibrate_magcache,
    needs_calibration=True,
    presets=presets(RELEASED),
    sweep={"reuse": (0.3, 0.4, 0.5, 0.6, 0.7)},
)
def magcache(
    ratios: tuple[Ratio, ...] | None = None,
    threshold: Annotated[float | None, Range(0)] = None,
    longest: Annotated[int | None, Range(0)] = None,
    retain: Annotated[float | None, Range(0, 1)] = None,
    forced: tuple[Index, ...] | None = None,
    strict: bool | None = None,
    model: Annotated[str | None, Choice(tuple(RELEASED))] = None,
) -> Plan:
    """Reuses the increment of all blocks while its calibrated length stays near that of the kept one.

    Args:
        ratios: one a step, how much longer its increment is than that of the step before; ``omnicache.calibrate`` measures them.
        threshold: the sum of relative deviations of length that is tolerated (delta); 0.12.
        longest: the most reuses in a row (K); 4.
        retain: share of the steps that are computed at the start (r); 0.2.
        forced: further steps that are always computed, by index.
        strict: whether a sum of just ``threshold`` is computed.
        model: take what was released for this model wherever nothing else is asked for. Known models find it by themselves.
    """
    asked = {"ratios": ratios, "threshold": threshold, "longest": longest, "retain": retain, "forced": forced, "strict": strict}
    o = settled(PLAIN, RELEASED[model] if model else {}, asked)
    if not o["ratios"]:
        raise OmniCacheError(
            'magcache needs the ratios of your model: plan = omnicache.calibrate(pipe, inputs, "magcache", reuse=0.5), then '
            f"omnicache.cache(pipe, plan); or model=..., one of {', '.join(RELEASED)}."
        )
    when = First(1) | Between(0.0, o["retain"]) if o["retain"] else First(1)
    if o["forced"]:
        when = when | Steps(o["forced"])
    when = when | Magnitudes(o["ratios"], o["threshold"], o["longest"], o["strict"])
    return Plan("magcache", (Policy(when, Stack(), Residual(Hold())),), {**o, "model": model})
