from __future__ import annotations

from typing import Annotated

from omnicache.granularity import MLP, Attention
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.predictors import Hold
from omnicache.registry import Range, method
from omnicache.selectors import TokenScores
from omnicache.triggers import Every, First, Ramp

FLUX = {"interval": 4, "warmup": 3, "ratio": 0.1, "slope": 0.0, "step_slope": 0.0, "layer_slope": 0.5, "module": 0.4, "spread": 0.0}


@method(
    "toca",
    paper="Accelerating Diffusion Transformers with Token-wise Feature Caching (arXiv 2410.05317)",
    axes={"when": "every n-th step, denser late", "where": "attention whole, MLP by token", "how": "hold", "fix": "-"},
    architectures="transformers with attention and MLP blocks",
    off={"interval": 1, "slope": 0.0},
    presets={"FluxTransformer2DModel": FLUX},
    sweep={"interval": (2, 3, 4, 5, 7)},
)
def toca(
    interval: Annotated[int, Range(1, 1000)] = 3,
    ratio: Annotated[float, Range(0, 1)] = 0.07,
    slope: Annotated[float, Range(0, 0.99)] = 0.4,
    step_slope: Annotated[float, Range(-10, 10)] = 2.0,
    layer_slope: Annotated[float, Range(-1, 1)] = -0.2,
    module: Annotated[float, Range(0, 100)] = 2.5,
    age_weight: Annotated[float, Range(0)] = 0.25,
    spread: Annotated[float, Range(0)] = 0.6,
    warmup: Annotated[int, Range(1, 1000)] = 1,
) -> Plan:
    """Between computed steps, recomputes only the tokens whose caching would hurt most, in every MLP.

    The defaults are the released ones for DiT with 50 DDIM steps. Attention is reused whole, that to text, too, where the release
    recomputes tokens of it on some models.

    Args:
        interval: base interval of computed steps.
        slope: stretches it early and shrinks it late (0: constant).
        ratio: base share of tokens computed in between; 0 is fora.
        step_slope, layer_slope, module: how the share grows along the run, over the blocks, and for MLPs.
        age_weight, spread: weights of staleness and of spatial spread in the choice.
        warmup: computed steps at the start; after more than one, a constant interval counts from the last of them.
    """
    steady = Every(interval) if warmup > 1 else Every(interval, phase=0, backwards=True)
    when = First(warmup) | (Ramp(interval, slope) if slope else steady)
    chosen = TokenScores(ratio, interval, step_slope, layer_slope, module, age_weight, spread=spread)
    policies = (Policy(when, Attention(), Hold()), Policy(when, MLP(), Hold(), which=chosen))
    options = {"interval": interval, "ratio": ratio, "slope": slope, "step_slope": step_slope, "layer_slope": layer_slope}
    options |= {"module": module, "age_weight": age_weight, "spread": spread, "warmup": warmup}
    return Plan("toca", policies, options)
