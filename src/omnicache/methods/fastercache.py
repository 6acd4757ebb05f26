from __future__ import annotations

from typing import Annotated

from omnicache.granularity import Attention, CrossAttention
from omnicache.methods.cfg_cache import Factor, Share, cfg_cache
from omnicache.plan import Plan
from omnicache.policy import Policy, Trigger
from omnicache.predictors import Extrapolate
from omnicache.registry import Range, method
from omnicache.triggers import Between, Every, First

Interval = Annotated[int, Range(1, 1000)]
Phase = Annotated[int, Range(0, 1000)]

LATTE = {"start": 15 / 50, "cfg_start": 17 / 50, "low_until": 44 / 50, "high_from": 44 / 50}
COGVIDEOX = {
    "start": 17 / 50,
    "interval": 3,
    "phase": 2,
    "weight": 0.3,
    "cfg_start": 17 / 50,
    "low_until": 0.8,
    "high_from": 29 / 50,
}
OPEN_SORA = {"start": 7 / 30, "weight": ((6 / 30, 0.0), (29 / 30, 1.035)), "cfg_start": 11 / 30}
OPEN_SORA_PLAN = {
    "start": 44 / 150,
    "interval": 3,
    "phase": 2,
    "weight": 0.3,
    "cfg_start": 39 / 150,
    "cfg_interval": 6,
    "cfg_phase": 5,
}
VCHITECT = {"start": 0.3, "weight": 0.0, "cfg_start": 0.3, "low": 1.05, "low_until": 0.79, "high_from": 0.6, "radius": 0.005}
MOCHI = {
    "start": 20 / 64,
    "phase": 1,
    "weight": ((31.5 / 64, 0.5), (63 / 64, 1.0)),
    "cfg_start": 22 / 64,
    "cfg_phase": 0,
    "cfg_last": 1,
}


@method(
    "fastercache",
    paper="FasterCache: Training-Free Video Diffusion Model Acceleration with High Quality (arXiv 2410.19355)",
    axes={
        "when": "early, then every n-th step",
        "where": "attention, and guidance",
        "how": "two-point extrapolation, and the difference in two bands",
        "fix": "-",
    },
    architectures="models with attention; guidance where there is any",
    off={"interval": 1, "cfg_interval": 1},
    presets={
        "LatteTransformer3DModel": LATTE,
        "CogVideoXTransformer3DModel": COGVIDEOX,
        "MochiTransformer3DModel": {**MOCHI, "low": 1.15, "high": 1.25, "low_until": 51 / 64, "high_from": 30 / 64},
        "STDiT3": {**OPEN_SORA, "low": 1.15, "high": 1.15, "low_until": 25 / 30, "high_from": 19 / 30},
        "LatteT2V": {**OPEN_SORA_PLAN, "high": 1.2, "low_until": 130 / 150, "high_from": 130 / 150},
        "VchitectXLTransformerModel": VCHITECT,
    },
    sweep={"interval": (2, 3, 4)},
)
def fastercache(
    start: Share = 0.3,
    interval: Interval = 2,
    phase: Phase = 0,
    weight: float | tuple[tuple[float, float], ...] = 0.5,
    cfg_start: Share = 0.34,
    cfg_interval: Interval = 5,
    cfg_phase: Phase = 4,
    cfg_last: Phase = 0,
    low: Factor = 1.1,
    high: Factor = 1.1,
    low_until: Share = 0.88,
    high_from: Share = 0.88,
    radius: Annotated[float, Range(0, 0.5)] = 0.2,
    compound: bool = False,
) -> Plan:
    """Extrapolates self-attention from its last two computed outputs, and works the unconditional branch out from the other one.

    The defaults are the released ones for Latte with 50 steps; a window is a share of the run, so that it fits runs of any length.

    Args:
        start: the share of the run in which attention is computed at every step,
        interval, phase: and which steps compute it from then on, as in cfg-cache.
        weight: of the difference of the two outputs; or a curve, of pairs (share of the run, weight).
        cfg_start, cfg_interval, cfg_phase, cfg_last, low, high, low_until, high_from, radius, compound: those of cfg-cache.
    """
    options = dict(locals())
    when: Trigger = First(1) | Every(interval, phase % interval)
    when = when | Between(0.0, start) if start else when
    attention = Policy(when, Attention() - CrossAttention(), Extrapolate(weight))
    guidance = cfg_cache(cfg_start, cfg_interval, cfg_phase, cfg_last, low, high, low_until, high_from, radius, compound)
    return Plan("fastercache", (attention, *guidance.policies), options)
