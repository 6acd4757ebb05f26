from __future__ import annotations

from omnicache.calibrate.blocks import calibrate_block_caching
from omnicache.granularity import Transformers
from omnicache.plan import Plan
from omnicache.predictors import Hold, Residual
from omnicache.registry import method
from omnicache.tables import check_rows, tabled


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
)
def block_caching(schedule: str | tuple[str, ...] = "") -> Plan:
    """Keeps what each block adds until, in calibration, it had changed too much. Resnets of a U-Net always run.

    Made by ``omnicache.calibrate(pipe, inputs, "block-caching", threshold=0.5)``.

    Args:
        schedule: for each block one character a step, "#" computed and "." reused; a single word is for all blocks.
    """
    check_rows("block-caching", schedule, "block")
    return Plan("block-caching", tabled(schedule, Transformers(), Residual(Hold())), {"schedule": schedule})
