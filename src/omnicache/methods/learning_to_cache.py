from __future__ import annotations

from omnicache.calibrate.gates.learning_to_cache import calibrate_learning_to_cache
from omnicache.granularity import MLP, Attention
from omnicache.plan import Plan
from omnicache.predictors import Hold
from omnicache.registry import method
from omnicache.tables import check_rows, tabled


@method(
    "learning-to-cache",
    paper="Learning-to-Cache: Accelerating Diffusion Transformer via Layer Caching (arXiv 2406.01733)",
    axes={"when": "every second step, else by a learned table", "where": "attention and MLP", "how": "hold", "fix": "-"},
    architectures="transformers with attention and MLP blocks",
    off={"schedule": "#" * 50},
    calibrate=calibrate_learning_to_cache,
    needs_calibration=True,
    sweep={"reuse": (0.4,)},
    slow_to_calibrate=True,
)
def learning_to_cache(schedule: str | tuple[str, ...] = "") -> Plan:
    """Computes every second step, and at the others the modules that a learned gate wants.

    Made by ``omnicache.calibrate(pipe, inputs, "learning-to-cache", reuse=0.4)``, which learns the gates.

    Args:
        schedule: for each attention and MLP, in the model's order, one character a step, "#" computed and "." reused; a single
            word is for all of them.
    """
    check_rows("learning-to-cache", schedule)
    return Plan("learning-to-cache", tabled(schedule, Attention() | MLP(), Hold()), {"schedule": schedule})
