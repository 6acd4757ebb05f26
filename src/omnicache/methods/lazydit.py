from __future__ import annotations

from typing import Annotated

from omnicache.calibrate.gates.lazydit import calibrate_lazydit
from omnicache.errors import OmniCacheError
from omnicache.granularity import MLP, Attention, Nth
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.predictors import Hold
from omnicache.registry import Range, method
from omnicache.selectors import LinearGate
from omnicache.tables import check_rows
from omnicache.triggers import Table
from omnicache.weights import Weights


@method(
    "lazydit",
    paper="LazyDiT: Lazy Learning for the Acceleration of Diffusion Transformers (arXiv 2412.12444)",
    axes={
        "when": "every second step, else by a learned gate",
        "where": "attention and MLP by sample",
        "how": "hold",
        "fix": "-",
    },
    architectures="transformers with attention and MLP blocks",
    off={"schedule": "#" * 50, "gates": ()},
    calibrate=calibrate_lazydit,
    needs_calibration=True,
    sweep={"reuse": (0.4,)},
    slow_to_calibrate=True,
)
def lazydit(
    schedule: str = "",
    gates: tuple[Weights, ...] = (),
    threshold: Annotated[float, Range(0)] = 0.5,
) -> Plan:
    """Asks a small linear gate before each module, at every second step, whether a sample needs it.

    Made by ``omnicache.calibrate(pipe, inputs, "lazydit", reuse=0.4)``, which learns the gates.

    Args:
        schedule: one character a step, "#" computed and "." where the gates decide.
        gates: for each attention and MLP, in the model's order, a vector for each step, ``(steps, width)``.
        threshold: a sample is computed where the sigmoid of its gate is at least this. The released code computes above it; the
            paper skips above it, which is the same with the gates' sign turned.
    """
    check_rows("lazydit", schedule, "module, and its gates")
    if "." in schedule and not gates:
        check_rows("lazydit", "", "module, and its gates")
    where, when = Attention() | MLP(), Table(schedule)
    for i, each in enumerate(gates):
        if len(each.shape) != 2 or each.shape[0] != len(schedule):
            raise OmniCacheError(f"lazydit: gate {i} is for {each.shape[0]} steps, and the schedule has {len(schedule)}.")
    policies = tuple(
        Policy(when, Nth(where, i, len(gates)), Hold(), which=LinearGate(each, threshold)) for i, each in enumerate(gates)
    )
    options = {"schedule": schedule, "threshold": threshold}
    return Plan("lazydit", policies or (Policy(when, where, Hold()),), options)
