"""diffusers' own caches, each with its configs.

Some pipelines tell a cache what it needs; those of the zoo do not. So a hook around the denoiser tells it the timestep and the
context of the call, and its state is cleared between runs, as the pipelines that support caches do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import torch

from omnicache.errors import OmniCacheError
from omnicache.measure.peers.call import Call
from omnicache.measure.peers.contender import Contender, Setting, Worn
from omnicache.measure.peers.scene import Scene

WIDE = (-1e9, 1e9)
BLOCKS = r"(.*\.)?(temporal_)?(transformer_)?blocks\.\d+"


def _settings(scene: Scene) -> list[Setting]:
    made: list[tuple[dict[str, Any], str]] = []
    for threshold in (0.05, 0.08, 0.12, 0.2, 0.35, 0.6):
        made.append(({"cache": "first block", "threshold": threshold}, f"FirstBlockCache, threshold {threshold:g}"))
    for order, intervals in ((1, (2, 3, 4, 5, 6)), (2, (2, 3, 4, 5))):
        for interval in intervals:
            for what, said in (("default", "its own sites"), ("modules", "attention and MLP"), ("lite", "lite")):
                options = {"cache": "taylorseer", "interval": interval, "order": order, "what": what}
                made.append((options, f"TaylorSeer {order}, every {interval} steps, {said}"))
    for threshold in (0.03, 0.06, 0.12, 0.25, 0.5):
        for retention in (0.1, 0.2):
            options = {"cache": "magcache", "threshold": threshold, "retention": retention}
            made.append((options, f"MagCache, threshold {threshold:g}, retention {retention:g}"))
    for wide in (False, True):
        for skip in (2, 3, 4, 6):
            options = {"cache": "pab", "skip": skip, "wide": wide}
            made.append((options, f"PyramidAttentionBroadcast, every {skip} steps{', at all timesteps' if wide else ''}"))
        for skip, uncond in ((2, 2), (2, 5), (3, 5)):
            options = {"cache": "fastercache", "skip": skip, "uncond": uncond, "wide": wide}
            label = f"FasterCache, attention every {skip}, unconditional every {uncond} steps"
            made.append((options, f"{label}{', at all timesteps' if wide else ''}"))
    for threshold in (0.1, 0.25, 0.5, 1.0):
        made.append(({"cache": "seacache", "threshold": threshold}, f"SeaCache, threshold {threshold:g}"))
    made.append(({"cache": "text kv"}, "TextKVCache"))
    return [Setting(options, label) for options, label in made]


def _put(scene: Scene, options: Mapping[str, Any]) -> Worn:
    call = Call(scene)
    CACHES[options["cache"]](scene, options, call)
    return Worn(around=call.run, off=call.hook.remove)


def _first_block(scene: Scene, options: Mapping[str, Any], call: Call) -> None:
    config, apply = _hooks("FirstBlockCacheConfig", "apply_first_block_cache")
    _need_blocks(scene, "FirstBlockCache")
    call.context = True
    apply(scene.denoiser, config(threshold=options["threshold"]))


def _taylorseer(scene: Scene, options: Mapping[str, Any], call: Call) -> None:
    config, apply = _hooks("TaylorSeerCacheConfig", "apply_taylorseer_cache")
    given: dict[str, Any] = {"cache_interval": options["interval"], "max_order": options["order"]}
    given["taylor_factors_dtype"] = torch.float32
    if options["what"] == "modules":
        given["cache_identifiers"] = [BLOCKS + r"\.(attn\d?|ff|ff_context)"]
    if options["what"] == "lite":
        _need_blocks(scene, "TaylorSeer's lite mode")
        blocks: Any = scene.denoiser.transformer_blocks
        no_text = getattr(blocks[-1], "context_pre_only", False)
        if hasattr(scene.denoiser, "proj_out") and not no_text:
            given["use_lite_mode"] = True
        else:  # its patterns know one name of the last layer, and its zeros fail on a last block that returns no text
            skipped = "|".join(map(str, range(len(blocks) - no_text)))
            given["skip_predict_identifiers"] = [rf"[^.]*blocks\.({skipped})"]
            given["cache_identifiers"] = ["proj_out(_2)?"]
    call.context = True
    apply(scene.denoiser, config(**given))


def _magcache(scene: Scene, options: Mapping[str, Any], call: Call) -> None:
    config, apply = _hooks("MagCacheConfig", "apply_mag_cache")
    _need_blocks(scene, "MagCache")
    apply(scene.denoiser, config(calibrate=True, num_inference_steps=scene.steps + 1))  # one more, or it forgets them at the end
    with call.run():
        scene.draw("tuning", 0, min(4, len(scene.inputs)))
        ratios = _ratios(scene.denoiser)
    given = {"threshold": options["threshold"], "retention_ratio": options["retention"], "mag_ratios": ratios}
    apply(scene.denoiser, config(num_inference_steps=scene.steps, max_skip_steps=4, **given))


def _ratios(model: torch.nn.Module) -> list[float]:
    for part in model.modules():
        registry = getattr(part, "_diffusers_hook", None)
        hook = registry.get_hook("mag_cache_leader_block_hook") if registry is not None else None
        if hook is not None:
            return list(hook.state_manager.get_state().calibration_ratios)
    raise OmniCacheError("MagCache found no transformer blocks.")


def _pab(scene: Scene, options: Mapping[str, Any], call: Call) -> None:
    config, apply = _hooks("PyramidAttentionBroadcastConfig", "apply_pyramid_attention_broadcast")
    kinds, given = ("spatial", "temporal", "cross"), {}
    for kind in kinds:
        given[f"{kind}_attention_block_skip_range"] = options["skip"]
        if options["wide"]:
            given[f"{kind}_attention_timestep_skip_range"] = WIDE
    apply(scene.denoiser, config(current_timestep_callback=lambda: call.timestep, **given))


def _fastercache(scene: Scene, options: Mapping[str, Any], call: Call) -> None:
    config, apply = _hooks("FasterCacheConfig", "apply_faster_cache")
    given: dict[str, Any] = {"spatial_attention_block_skip_range": options["skip"]}
    given["unconditional_batch_skip_range"] = options["uncond"]
    given["tensor_format"] = "BCHW" if scene.task.frames == 1 else "BCFHW"
    if scene.task.frames > 1:
        given["temporal_attention_block_skip_range"] = options["skip"]
    if options["wide"]:
        given |= {
            f"{kind}_timestep_skip_range": WIDE for kind in ("spatial_attention", "temporal_attention", "unconditional_batch")
        }
    split = ("hidden_states", "encoder_hidden_states", "timestep", "pooled_projections", "attention_mask", "encoder_attention_mask")
    made = config(current_timestep_callback=lambda: call.timestep, **given)
    made._unconditional_conditional_input_kwargs_identifiers = split
    apply(scene.denoiser, made)


def _seacache(scene: Scene, options: Mapping[str, Any], call: Call) -> None:
    config, apply = _hooks("SeaCacheConfig", "apply_sea_cache")

    def latents(_: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[torch.Tensor]:
        given = kwargs.get("hidden_states", args[0] if args else None)
        return list(given if given.ndim == 5 else given[:, :, None])

    call.context = True
    apply(scene.denoiser, config(threshold=options["threshold"], raw_vision_callback=latents))


def _text_kv(scene: Scene, options: Mapping[str, Any], call: Call) -> None:
    config, apply = _hooks("TextKVCacheConfig", "apply_text_kv_cache")
    apply(scene.denoiser, config())


def _hooks(*names: str) -> list[Any]:
    """A config and what applies it.

    Raises:
        OmniCacheError: the installed diffusers has none of that name.
    """
    hooks = import_module("diffusers.hooks")
    for name in names:
        if not hasattr(hooks, name):
            raise OmniCacheError(f"The installed diffusers has no {name}.")
    return [getattr(hooks, name) for name in names]


def _need_blocks(scene: Scene, name: str) -> None:
    """Say in words what they would fail on in the middle of their code."""
    if not any(hasattr(scene.denoiser, known) for known in ("transformer_blocks", "blocks", "layers")):
        raise OmniCacheError(f"{name} needs a list of transformer blocks, and {type(scene.denoiser).__name__} has none.")


CACHES: dict[str, Callable[[Scene, Mapping[str, Any], Call], None]] = {
    "first block": _first_block,
    "taylorseer": _taylorseer,
    "magcache": _magcache,
    "pab": _pab,
    "fastercache": _fastercache,
    "seacache": _seacache,
    "text kv": _text_kv,
}

CONTENDER = Contender("diffusers", "peer", _settings, _put, "diffusers")
