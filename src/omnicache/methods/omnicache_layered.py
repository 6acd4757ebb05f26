from __future__ import annotations

from itertools import groupby

from omnicache.calibrate.layered import calibrate_layered
from omnicache.errors import OmniCacheError
from omnicache.granularity import Layers
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.predictors import Hold, Residual
from omnicache.registry import method
from omnicache.triggers import Table


@method(
    "omnicache-layered",
    paper="OmniCache: a multidimensional cache (the Layered Cache; anonymous submission)",
    axes={"when": "by a calibrated schedule of each layer", "where": "layer by layer", "how": "hold the increment", "fix": "-"},
    architectures="transformers and U-Nets",
    off={"schedule": "#" * 50},
    calibrate=calibrate_layered,
    needs_calibration=True,
    sweep={"speedup": (1.3, 1.6, 2.0, 2.5)},
    slow_to_calibrate=True,
)
def omnicache_layered(schedule: str | tuple[str, ...] = "") -> Plan:
    """Reuses each layer by a schedule of its own, made from what every layer costs and saves at every step.

    Made by ``omnicache.calibrate(pipe, inputs, "omnicache-layered", speedup=2.0)``. Layers in a row with equal schedules are
    kept as one function.

    Args:
        schedule: for each layer one character a step, "#" computed and "." reused; a single word is for all layers.
    """
    rows = (schedule,) if isinstance(schedule, str) else schedule
    if not rows or not all(rows) or any(set(row) - {"#", "."} or len(row) != len(rows[0]) for row in rows):
        raise OmniCacheError(
            "omnicache-layered needs a calibrated schedule of each layer, all of one length: "
            'plan = omnicache.calibrate(pipe, inputs, "omnicache-layered", speedup=2.0), then omnicache.cache(pipe, plan). '
            "On the command line: omnicache calibrate PIPE -m omnicache-layered --out my.plan.json, then --method my.plan.json."
        )
    policies, first = [], 0
    for row, group in groupby(rows):
        after = first + len(list(group))
        where = Layers() if len(rows) == 1 else Layers(first, after)
        if "." in row or set(rows) == {row}:
            policies.append(Policy(Table(row), where, Residual(Hold())))
        first = after
    return Plan("omnicache-layered", tuple(policies), {"schedule": schedule})
