from __future__ import annotations

from typing import Annotated

from omnicache.granularity import MLP, Attention, Called, CrossAttention, Temporal, Within
from omnicache.plan import Plan
from omnicache.policy import Policy, Where
from omnicache.predictors import Hold
from omnicache.registry import Range, method
from omnicache.triggers import Every, Outside, Spells

Interval = Annotated[int, Range(1, 1000)] | None
KINDS: dict[str, Where] = {
    "spatial": Attention() - CrossAttention() - Temporal(),
    "temporal": (Attention() - CrossAttention()) & Temporal(),
    "cross": CrossAttention(),
}


def broadcast(kind: str, interval: int, window: tuple[float, float], optional: bool = False) -> Policy:
    """One step in ``interval`` computes this kind of attention, and all steps do outside of a window of timesteps."""
    name = "cross-attention" if kind == "cross" else f"{kind} attention"
    return Policy(Outside(*window) | Every(interval, phase=0), Called(KINDS[kind], name, optional), Hold())


@method(
    "pab",
    paper="Real-Time Video Generation with Pyramid Attention Broadcast (arXiv 2408.12588)",
    axes={"when": "every n-th step, n by the kind of attention", "where": "attention (and MLP)", "how": "hold", "fix": "-"},
    architectures="transformers and U-Nets with attention",
    off={"window": (0.0, 0.0), "mlp_times": ()},
    presets={
        "LatteTransformer3DModel": {
            "temporal": 3,
            "mlp_times": (720.0, 640.0, 560.0, 480.0, 400.0),
            "mlp_blocks": 5,
        },
        "CogVideoXTransformer3DModel": {"window": (100.0, 850.0)},
        "LatteT2V": {"window": (100.0, 850.0), "mlp_times": tuple(738.0 - 24 * i for i in range(14)), "mlp_blocks": 7},
        "STDiT3": {"window": (450.0, 930.0), "mlp_times": (864.0, 788.0, 676.0), "mlp_blocks": 5},
    },
    sweep={"spatial": (2, 3, 4, 6)},
)
def pab(
    spatial: Interval = None,
    temporal: Interval = None,
    cross: Interval = None,
    window: tuple[float, float] = (100.0, 800.0),
    mlp_times: tuple[float, ...] = (),
    mlp_blocks: Annotated[int, Range(1)] = 5,
    mlp_steps: Annotated[int, Range(1)] = 2,
) -> Plan:
    """In the middle of a run, reuses attention outputs for the longer the steadier that kind of attention is.

    Args:
        spatial, temporal, cross: one step in so many computes that kind; joint attention is spatial. None: 2, 4 and 6, where the
            model has such; a number that is given asks for a model that has it.
        window: timesteps, 0 to 1000, between which attention is reused. The phase counts from the first step of all, as released.
        mlp_times: timesteps after which feed-forward outputs are reused, too.
        mlp_blocks, mlp_steps: in so many first blocks of each row, and for so many steps.
    """
    options = dict(locals())
    ranges = {"spatial": (spatial, 2), "temporal": (temporal, 4), "cross": (cross, 6)}
    policies = [broadcast(kind, given or usual, window, optional=given is None) for kind, (given, usual) in ranges.items()]
    if mlp_times:
        where = Called(MLP() & Within(0, mlp_blocks, of="row"), "feed-forward module")
        policies.append(Policy(Spells(mlp_times, mlp_steps), where, Hold()))
    return Plan("pab", tuple(policies), options)
