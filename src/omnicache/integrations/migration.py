"""Settings of other caches, in OmniCache's words: configs of diffusers and of cache-dit are taken where the method exists.

They are told by the names of their classes; neither library is imported. What the setting says here is printed, so that it can be
written so from then on.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from omnicache import registry
from omnicache.errors import OmniCacheError
from omnicache.granularity import Attention, Denoiser
from omnicache.methods.pab import KINDS, broadcast
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.predictors import Taylor
from omnicache.triggers import Between, Every, First

FOREVER = 10**6
MISSING = {
    "LayerSkipConfig": "skip-layer guidance, which is no cache",
    "TextKVCacheConfig": "a cache of the text's keys and values",
    "BasicCacheConfig": "cache-dit's cache",
    "DBPruneConfig": "DBPrune",
    "TaylorSeerCalibratorConfig": "a calibrator for another cache",
}


Policies = tuple[Policy, ...]


def _taylorseer(config: Any) -> Policies:
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
    return (Policy(steps, Denoiser() if config.use_lite_mode else Attention(), Taylor(config.max_order)),)


def _first_block(config: Any) -> Policies:
    """diffusers' First-Block-Cache."""
    return registry.get("first-block-cache").plan(threshold=config.threshold).policies


def _pab(config: Any) -> Policies:
    """diffusers' Pyramid Attention Broadcast, which has a window for each kind of attention, and takes attention along time for
    spatial where a range for that is given. Without any range it reuses spatial attention every other step."""
    made, by_name = [], getattr(type(config), "__dataclass_fields__", {})
    for kind in KINDS:
        patterns = f"{kind}_attention_block_identifiers"
        if patterns in by_name and getattr(config, patterns) != by_name[patterns].default:
            raise OmniCacheError(
                f"PyramidAttentionBroadcastConfig({patterns}=...) names modules by pattern, and OmniCache names places: "
                "leave it out, or write a Policy with where=Attention(), CrossAttention() or Temporal()."
            )
        interval = getattr(config, f"{kind}_attention_block_skip_range")
        if interval is not None:
            made.append(broadcast(kind, interval, getattr(config, f"{kind}_attention_timestep_skip_range")))
    return tuple(made) or (broadcast("spatial", 2, config.spatial_attention_timestep_skip_range),)


def _dbcache(config: Any) -> Policies:
    """cache-dit's DBCache; limits of -1 are none there."""
    limits = {"longest": "max_continuous_cached_steps", "most": "max_cached_steps"}
    options = {ours: most for ours, theirs in limits.items() if (most := getattr(config, theirs, -1)) >= 0}
    mask = getattr(config, "steps_computation_mask", None) or ()
    return (
        registry.get("dbcache")
        .plan(
            front=config.Fn_compute_blocks,
            back=config.Bn_compute_blocks,
            threshold=config.residual_diff_threshold,
            warmup=max(config.max_warmup_steps, 1),
            mask="".join("#" if computed else "." for computed in mask),
            **options,
        )
        .policies
    )


def _magcache(config: Any) -> Policies:
    """diffusers' MagCache."""
    if config.calibrate:
        raise OmniCacheError(
            'MagCacheConfig(calibrate=True) measures ratios; here: plan = omnicache.calibrate(pipe, inputs, "magcache"), then '
            "omnicache.cache(pipe, plan)."
        )
    ratios = tuple(float(r) for r in config.mag_ratios)
    options = {"threshold": config.threshold, "longest": config.max_skip_steps, "retain": config.retention_ratio}
    return registry.get("magcache").plan(ratios=ratios, **options).policies


def _seacache(config: Any) -> Policies:
    """diffusers' SeaCache, which watches the latents."""
    if config.raw_vision_callback is not None:
        raise OmniCacheError("SeaCacheConfig(raw_vision_callback=...) chooses latents by code, which a plan does not hold.")
    options = {"warmup": max(config.retention_steps, 1), "tail": config.cache_end_steps, "order": config.residual_order}
    options |= {"longest": config.max_consecutive_cached or None, "power": config.power_exp, "of": "latent"}
    return registry.get("seacache").plan(threshold=config.threshold, **options).policies


def _fastercache(config: Any) -> Policies:
    """diffusers' computes attention whenever both branches run, and has windows in timesteps; ours does neither."""

    def share(timestep: float) -> str:
        return f"{min(max(1 - timestep / 1000, 0.0), 1.0):.3g}"

    options = {
        "start": share(config.spatial_attention_timestep_skip_range[1]),
        "interval": config.spatial_attention_block_skip_range,
        "cfg_start": share(config.unconditional_batch_timestep_skip_range[1]),
        "cfg_interval": config.unconditional_batch_skip_range,
        "cfg_phase": 0,
        "low": config.alpha_low_frequency,
        "high": config.alpha_high_frequency,
        "low_until": share(config.low_frequency_weight_update_timestep_range[0]),
        "high_from": share(config.high_frequency_weight_update_timestep_range[1]),
    }
    told = ", ".join(f"{name}={value}" for name, value in options.items())
    raise OmniCacheError(
        "FasterCacheConfig has windows in timesteps, and fastercache has shares of the run, which fit every scheduler. What comes "
        f'nearest: omnicache.cache(pipe, "fastercache", {told}).'
    )


KNOWN: dict[str, Callable[[Any], Policies]] = {
    "TaylorSeerCacheConfig": _taylorseer,
    "FirstBlockCacheConfig": _first_block,
    "PyramidAttentionBroadcastConfig": _pab,
    "DBCacheConfig": _dbcache,
    "MagCacheConfig": _magcache,
    "SeaCacheConfig": _seacache,
    "FasterCacheConfig": _fastercache,
}


def translate(config: Any) -> Plan | None:
    """The plan that another cache's config describes; None if it is no such config.

    Raises:
        OmniCacheError: it is one, and OmniCache has no such method.
    """
    name = type(config).__name__
    if isinstance(config, type) and config.__name__ in KNOWN:
        raise OmniCacheError(f"{config.__name__} is a class; give its settings: {config.__name__}(...).")
    if name in MISSING:
        raise OmniCacheError(
            f"{name} describes {MISSING[name]}, and OmniCache has no method of that name yet. See `omnicache methods`; for a plan "
            'that fits your model and asks for no threshold: omnicache.calibrate(pipe, inputs, "omnicache-trajectory").'
        )
    if name not in KNOWN:
        return None
    policies = KNOWN[name](config)
    print(f"OmniCache: {name}(...) is {' and '.join(map(str, policies))}", file=sys.stderr)
    library = type(config).__module__.split(".")[0].replace("_", "-")
    return Plan(f"{library}'s {name}".replace("diffusers's", "diffusers'"), policies)
