from __future__ import annotations

from omnicache.calibrate.gates.harmonica import calibrate_harmonica
from omnicache.granularity import MLP, Attention
from omnicache.plan import Plan
from omnicache.predictors import Hold
from omnicache.registry import method
from omnicache.tables import check_rows, tabled


@method(
    "harmonica",
    paper="HarmoniCa: Harmonizing Training and Inference for Better Feature Caching (arXiv 2410.01723)",
    axes={"when": "by a learned table", "where": "attention and MLP", "how": "hold", "fix": "-"},
    architectures="transformers with attention and MLP blocks",
    off={"schedule": "#" * 50},
    calibrate=calibrate_harmonica,
    needs_calibration=True,
    sweep={"reuse": (0.5,)},
    slow_to_calibrate=True,
)
def harmonica(schedule: str | tuple[str, ...] = "") -> Plan:
    """Computes the modules that a table wants, which was learned along the path that its own reuse leads to.

    Made by ``omnicache.calibrate(pipe, inputs, "harmonica", reuse=0.5)``, which learns the gates.

    Args:
        schedule: for each attention and MLP, in the model's order, one character a step, "#" computed and "." reused; a single
            word is for all of them.
    """
    check_rows("harmonica", schedule)
    return Plan("harmonica", tabled(schedule, Attention() | MLP(), Hold()), {"schedule": schedule})
