from __future__ import annotations

from omnicache.calibrate.blocks import calibrate_block_caching
from omnicache.errors import OmniCacheError
from omnicache.granularity import Nth, Transformers
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.predictors import Hold, Residual, ScaleShift
from omnicache.registry import method
from omnicache.tables import check_rows, tabled
from omnicache.triggers import Table
from omnicache.weights import Weights


@method(
    "block-caching",
    paper="Cache Me if You Can: Accelerating Diffusion Models through Block Caching (arXiv 2312.03209)",
    axes={
        "when": "accumulated change of each block, calibrated",
        "where": "attention blocks of a U-Net, or blocks",
        "how": "hold the increment",
        "fix": "-",
    },
    architectures="U-Nets with attention, transformers",
    off={"schedule": "#" * 50},
    calibrate=calibrate_block_caching,
    needs_calibration=True,
    sweep={"threshold": (0.1, 0.2, 0.3, 0.5, 0.8)},
)
def block_caching(schedule: str | tuple[str, ...] = "", fits: tuple[tuple[Weights, ...], ...] = ()) -> Plan:
    """Keeps what each block adds until, in calibration, it had changed too much. Resnets of a U-Net always run.

    Made by ``omnicache.calibrate(pipe, inputs, "block-caching", threshold=0.5)``.

    Args:
        schedule: for each block one character a step, "#" computed and "." reused; a single word is for all blocks.
        fits: for each block the scales and shifts of what is kept, by channel and step (see ``ScaleShift``): least-squares fits,
            in place of the paper's distillation; () for none.
    """
    check_rows("block-caching", schedule, "block")
    if not fits:
        return Plan("block-caching", tabled(schedule, Transformers(), Residual(Hold())), {"schedule": schedule})
    if isinstance(schedule, str) or len(fits) != len(schedule):
        raise OmniCacheError(f"block-caching: option fits: {len(fits)} do not fit a schedule that has a row for each block.")
    policies = tuple(
        Policy(Table(row), Nth(Transformers(), i, len(fits)), Residual(ScaleShift(fit) if fit else Hold()))
        for i, (row, fit) in enumerate(zip(schedule, fits, strict=True))
    )
    return Plan("block-caching", policies, {"schedule": schedule, "fitted": True})
