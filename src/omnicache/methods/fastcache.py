from __future__ import annotations

from typing import Annotated

from omnicache.calibrate.maps import calibrate_fastcache
from omnicache.errors import OmniCacheError
from omnicache.granularity import MLP, Attention, Blocks, Nth, Text
from omnicache.plan import Plan
from omnicache.policy import Policy, Trigger
from omnicache.predictors import Affine, Hold
from omnicache.registry import Choice, Range, method
from omnicache.selectors import Motion
from omnicache.signals import ChiSquareChange, ProbeChange
from omnicache.triggers import Above, Every, First
from omnicache.weights import Weights


@method(
    "fastcache",
    paper="FastCache: Fast Caching for Diffusion Transformer Through Learnable Linear Approximation (arXiv 2505.20353)",
    axes={
        "when": "change of what each block is given",
        "where": "block by block, attention and MLP by token",
        "how": "a fitted line",
        "fix": "-",
    },
    architectures="transformers",
    off={"threshold": 0.0, "motion": None},
    calibrate=calibrate_fastcache,
    needs_calibration=True,
    sweep={"threshold": (0.05, 0.15)},
    slow_to_calibrate=True,
)
def fastcache(
    maps: tuple[tuple[Weights, ...], ...] = (),
    threshold: Annotated[float, Range(0)] = 0.05,
    motion: float | None = 0.1,
    gate: Annotated[str, Choice(("change", "chi-square"))] = "change",
) -> Plan:
    """Puts a fitted line in place of a block whose input has hardly changed, and in the others computes the tokens that move.

    Made by ``omnicache.calibrate(pipe, inputs, "fastcache")``, which fits the lines. Tokens that stand still keep what attention
    and MLP last gave them, where the paper takes them around all blocks by one more line.

    Args:
        maps: for each block and each tensor that it gives a line, ``(width + 1, width)``; an empty tuple for a block hands its
            input on.
        threshold: relative change (L2) of a block's input from step to step from which on it is computed. 0 computes all.
        motion: squared change of a token, as a share of the largest, above which it is computed; None computes all tokens.
        gate: "change" is what decides in the released code in effect; "chi-square" is the published test, which lets every change
            below the whole pass.
    """
    if not maps and threshold:
        raise OmniCacheError(
            'fastcache needs fitted lines: plan = omnicache.calibrate(pipe, inputs, "fastcache"), then omnicache.cache(pipe, plan).'
            " On the command line: omnicache calibrate PIPE -m fastcache --out my.plan.json, then --method my.plan.json."
        )

    def when(block: int) -> Trigger:
        if gate == "chi-square" and threshold:
            return Above(ChiSquareChange(block), 1.0)
        return Above(ProbeChange(block, "output", "visited", "l2"), threshold)

    policies = [Policy(when(i), Nth(Blocks(), i, len(maps)), Affine(fit)) for i, fit in enumerate(maps)]
    if motion is not None:
        policies.append(Policy(First(1), (Attention() | MLP()) - Text(), Hold(), which=Motion(motion)))
    options = {"threshold": threshold, "motion": motion, "gate": gate}
    return Plan("fastcache", tuple(policies) or (Policy(Every(1), Blocks(), Affine()),), options)
