"""The cache-dit package: DBCache, alone and with its calibrators, and masks of steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omnicache.errors import OmniCacheError
from omnicache.measure.peers.contender import Contender, Setting, Worn
from omnicache.measure.peers.scene import Scene

CALIBRATORS = ("TaylorSeer 1", "TaylorSeer 2", "FoCa", "DMD")
PRESETS = ("slow", "medium", "fast", "ultra")
NEUTRAL: dict[str, Any] = {"front": 1, "back": 0, "threshold": 0.0, "warmup": 2, "calibrator": None}


def _settings(scene: Scene) -> list[Setting]:
    count, warmup = len(_blocks(scene)), max(2, round(scene.steps / 10))
    made: list[dict[str, Any]] = []
    for calibrator in (None, *CALIBRATORS):
        for threshold in (0.08, 0.12, 0.2, 0.35, 0.6):
            made.append({**NEUTRAL, "threshold": threshold, "warmup": warmup, "calibrator": calibrator})
    for front, back in ((1, 1), (4, 0), (8, 0), (8, 4)):
        if front + back < count:
            for threshold in (0.08, 0.2, 0.35):
                made.append({**NEUTRAL, "front": front, "back": back, "threshold": threshold, "warmup": warmup})
    made.append({**NEUTRAL, "front": min(8, count - 1), "threshold": 0.08, "warmup": 8})  # the package's own defaults
    for preset in PRESETS:
        for calibrator in (None, *CALIBRATORS):
            made.append({**NEUTRAL, "mask": preset, "calibrator": calibrator})
    for every in (2, 3, 4, 5, 6, 8):
        for calibrator in CALIBRATORS:
            for since in (warmup + 1, warmup + 3) if calibrator == "DMD" else (warmup + 1,):  # it fits four steps or more
                made.append({**NEUTRAL, "mask": every, "warmup": since, "calibrator": calibrator})
    return [Setting(one, _label(one)) for one in made]


def _label(one: Mapping[str, Any]) -> str:
    if "mask" in one:
        mask = f"mask {one['mask']}"
        if not isinstance(one["mask"], str):
            mask = f"mask of every {one['mask']} steps after {one['warmup']}"
        return f"{mask}, {one['calibrator'] or 'no calibrator'}"
    known = f"F{one['front']}B{one['back']}, threshold {one['threshold']:g}, warm-up {one['warmup']}"
    return known + (f", {one['calibrator']}" if one["calibrator"] else "")


def _put(scene: Scene, options: Mapping[str, Any]) -> Worn:
    import cache_dit

    _blocks(scene)
    config = cache_dit.DBCacheConfig(
        Fn_compute_blocks=options["front"],
        Bn_compute_blocks=options["back"],
        residual_diff_threshold=options["threshold"],
        max_warmup_steps=options["warmup"],
        num_inference_steps=scene.steps,
    )
    if "mask" in options:
        config.steps_computation_mask = _mask(options, scene.steps)
        config.steps_computation_policy = "static"
    pipe = scene.pipe
    cache_dit.enable_cache(_adapter(scene), cache_config=config, calibrator_config=_calibrator(scene, options["calibrator"]))
    return Worn(off=lambda: cache_dit.disable_cache(pipe))


def _mask(options: Mapping[str, Any], steps: int) -> list[int]:
    import cache_dit

    if isinstance(options["mask"], str):
        return cache_dit.steps_mask(total_steps=steps, mask_policy=options["mask"])
    since = options["warmup"]
    return [int(k < since or (k - since) % options["mask"] == options["mask"] - 1) for k in range(steps)]


def _calibrator(scene: Scene, name: str | None) -> Any:
    import cache_dit

    if name is None:
        return None
    given: dict[str, Any] = {}
    if getattr(_blocks(scene)[-1], "context_pre_only", False):  # it returns no text, and the calibrators for text fail on that
        given["enable_encoder_calibrator"] = False
    if name.startswith("TaylorSeer"):
        return cache_dit.TaylorSeerCalibratorConfig(taylorseer_order=int(name.split()[1]), **given)
    return cache_dit.FoCaCalibratorConfig(**given) if name == "FoCa" else cache_dit.DMDCalibratorConfig(**given)


def _adapter(scene: Scene) -> Any:
    """The pipeline where the package knows it; else an adapter for its lists of blocks, as the package's manual has it."""
    from cache_dit import BlockAdapter, ForwardPattern
    from cache_dit.caching.block_adapters import BlockAdapterRegister

    if BlockAdapterRegister.is_supported(scene.pipe):
        return scene.pipe
    transformer = scene.pipe.transformer
    return BlockAdapter(
        pipe=scene.pipe,
        transformer=transformer,
        blocks=transformer.transformer_blocks,
        forward_pattern=ForwardPattern.Pattern_3,
        check_forward_pattern=False,
    )


def _blocks(scene: Scene) -> Any:
    blocks = getattr(getattr(scene.pipe, "transformer", None), "transformer_blocks", None)
    if blocks is None:
        raise OmniCacheError(f"cache-dit works on a list of transformer blocks, and {type(scene.pipe).__name__} has none.")
    return blocks


CONTENDER = Contender("cache-dit", "peer", _settings, _put, "cache-dit", neutral=NEUTRAL)
