"""Settings of other caches, in OmniCache's words: configs of diffusers and of cache-dit are taken where the method exists.

They are told by the names of their classes; neither library is imported. What the setting says here is printed, so that it can be
written so from then on.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from omnicache.errors import OmniCacheError
from omnicache.granularity import Attention, Denoiser
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.predictors import Taylor
from omnicache.triggers import Between, Every, First

FOREVER = 10**6
MISSING = {
    "FirstBlockCacheConfig": "a cache that is triggered by the first block's residual",
    "FasterCacheConfig": "FasterCache",
    "PyramidAttentionBroadcastConfig": "Pyramid Attention Broadcast",
    "MagCacheConfig": "MagCache",
    "SeaCacheConfig": "SeaCache",
    "LayerSkipConfig": "skip-layer guidance, which is no cache",
    "TextKVCacheConfig": "a cache of the text's keys and values",
    "DBCacheConfig": "DBCache, which is triggered by the first blocks' residual",
    "BasicCacheConfig": "cache-dit's cache",
    "DBPruneConfig": "DBPrune",
    "TaylorSeerCalibratorConfig": "a calibrator for another cache",
}


def _taylorseer(config: Any) -> Policy:
    """diffusers' TaylorSeer: attention outputs, or with ``use_lite_mode`` the model's output, forecast by a Taylor ladder."""
    for name in ("skip_predict_identifiers", "cache_identifiers"):
        if getattr(config, name, None):
            raise OmniCacheError(
                f"TaylorSeerCacheConfig({name}=...) names modules by pattern, and OmniCache names places: write a Policy with "
                "where=Attention(), MLP() or Stack()."
            )
    warmup, interval = config.disable_cache_before_step, config.cache_interval
    when = Every(interval, phase=(warmup + 1) % interval)
    steps = First(warmup) | when if warmup else when
    if config.disable_cache_after_step is not None:
        steps = steps | Between(config.disable_cache_after_step, FOREVER)
    return Policy(steps, Denoiser() if config.use_lite_mode else Attention(), Taylor(config.max_order))


KNOWN: dict[str, Callable[[Any], Policy]] = {"TaylorSeerCacheConfig": _taylorseer}


def translate(config: Any) -> Plan | None:
    """The plan that another cache's config describes; None if it is no such config.

    Raises:
        OmniCacheError: it is one, and OmniCache has no such method.
    """
    name = type(config).__name__
    if name in MISSING:
        raise OmniCacheError(
            f"{name} describes {MISSING[name]}, and OmniCache has no method of that name yet. See `omnicache methods`; for a plan "
            'that fits your model and asks for no threshold: omnicache.calibrate(pipe, inputs, "omnicache-trajectory").'
        )
    if name not in KNOWN:
        return None
    policy = KNOWN[name](config)
    print(f"OmniCache: {name}(...) is {policy}", file=sys.stderr)
    return Plan(f"diffusers' {name}", (policy,))
