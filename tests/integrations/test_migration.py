"""Configs of other caches: the same steps and the same values as theirs, or a sentence."""

import diffusers
import pytest
import torch
from tests.compat.checks import Loop, difference
from tests.compat.denoisers.flux import DENOISERS

import omnicache
from omnicache.errors import OmniCacheError
from omnicache.integrations.migration import MISSING, translate

from ..methods.tiny import Pipe, ddim, latte


@pytest.mark.parametrize(
    ("settings", "strip"),
    [
        ({}, "###.#....#...."),
        ({"cache_interval": 3, "disable_cache_before_step": 2, "max_order": 2}, "##.#..#..#..#."),
        ({"cache_interval": 4, "disable_cache_after_step": 11}, "###.#...#..###"),
    ],
)
def test_taylorseer_of_diffusers_gives_the_same_values(settings, strip, capsys):
    loop = Loop("FluxTransformer2DModel", DENOISERS["FluxTransformer2DModel"])
    config = diffusers.TaylorSeerCacheConfig(taylor_factors_dtype=torch.float32, **settings)
    plain = loop(steps=14)
    with omnicache.cache(loop, config) as ours:
        out = loop(steps=14)
    assert ours.computed.replace("o", ".") == strip
    assert "TaylorSeerCacheConfig(...) is Policy(when=" in capsys.readouterr().err

    loop.transformer.enable_cache(config)
    with loop.transformer.cache_context("one"):
        theirs = loop(steps=14)
    assert difference(plain, theirs) > 1e-3
    assert difference(theirs, out) < 1e-4


def test_lite_mode_is_the_models_output():
    pipe = Pipe(latte(), ddim())
    with omnicache.cache(pipe, diffusers.TaylorSeerCacheConfig(use_lite_mode=True)) as ours:
        pipe(num_inference_steps=14, shape=(4, 3, 8, 8))
    assert ours.computed == "###.#....#...."


@pytest.mark.parametrize("name", sorted(MISSING))
def test_what_has_no_counterpart_is_refused_in_a_sentence(name):
    config = type(name, (), {})()
    with pytest.raises(OmniCacheError, match=f"{name} describes .* no method of that name yet"):
        omnicache.enable(Pipe(latte()), config)


def test_fastercache_of_diffusers_is_refused_with_what_comes_nearest_ready_to_type():
    config = diffusers.FasterCacheConfig(unconditional_batch_skip_range=4, alpha_high_frequency=1.2)
    pipe = Pipe(latte())
    with pytest.raises(OmniCacheError) as refused:
        omnicache.enable(pipe, config)
    call = str(refused.value).split("comes nearest: ")[1].rstrip(".")
    with eval(call, {"omnicache": omnicache, "pipe": pipe}) as run:
        options = run.plan.options
    assert (options["start"], options["cfg_start"], options["cfg_interval"], options["high"]) == (0.319, 0.359, 4, 1.2)
    assert (options["interval"], options["low_until"], options["high_from"]) == (2, 0.901, 0.699)


def test_a_class_in_place_of_a_config_is_told():
    with pytest.raises(OmniCacheError, match=r"give its settings: FirstBlockCacheConfig\(...\)"):
        omnicache.enable(Pipe(latte()), diffusers.FirstBlockCacheConfig)


def test_patterns_are_refused():
    with pytest.raises(OmniCacheError, match="names modules by pattern"):
        translate(diffusers.TaylorSeerCacheConfig(cache_identifiers=["blocks.*"]))


def test_other_objects_are_no_configs():
    assert translate(object()) is None


def test_first_block_cache_of_diffusers_makes_the_same_decisions():
    loop = Loop("FluxTransformer2DModel", DENOISERS["FluxTransformer2DModel"])
    config = diffusers.FirstBlockCacheConfig(threshold=1.5)
    plain = loop(steps=14)
    with omnicache.cache(loop, config) as ours:
        out = loop(steps=14)
    assert "." in ours.computed.replace("o", ".")
    loop.transformer.enable_cache(config)
    with loop.transformer.cache_context("one"):
        theirs = loop(steps=14)
    assert difference(plain, theirs) > 1e-3
    assert difference(theirs, out) < 1e-4


@pytest.mark.parametrize(
    "settings", [{}, {"spatial_attention_block_skip_range": 3, "spatial_attention_timestep_skip_range": (50, 700)}]
)
def test_pyramid_attention_broadcast_of_diffusers_gives_the_same_values(settings):
    loop = Loop("FluxTransformer2DModel", DENOISERS["FluxTransformer2DModel"])
    plain, now = loop(steps=14), []
    config = diffusers.PyramidAttentionBroadcastConfig(**settings, current_timestep_callback=lambda: now[-1])
    with omnicache.cache(loop, config) as ours:
        out = loop(steps=14)
    assert "." in ours.computed.replace("o", ".")

    scheduled = loop.scheduler.timesteps.tolist()
    step = iter(scheduled)
    loop.transformer.register_forward_pre_hook(lambda *_: now.append(next(step)))
    loop.transformer.enable_cache(config)
    with loop.transformer.cache_context("one"):
        theirs = loop(steps=14)
    assert difference(plain, theirs) > 1e-3
    assert difference(theirs, out) < 1e-4


def test_pyramid_attention_broadcast_has_a_range_and_a_window_for_each_kind():
    config = diffusers.PyramidAttentionBroadcastConfig(
        temporal_attention_block_skip_range=3, cross_attention_block_skip_range=5, cross_attention_timestep_skip_range=(200, 600)
    )
    temporal, cross = translate(config).policies
    ours = omnicache.methods()["pab"]
    assert temporal == ours.plan(temporal=3).policies[1]
    assert cross == ours.plan(cross=5, window=(200.0, 600.0)).policies[2]
    config.cross_attention_block_identifiers = ("blocks.1",)
    with pytest.raises(OmniCacheError, match=r"cross_attention_block_identifiers.* names modules by pattern"):
        translate(config)


def test_dbcache_of_cache_dit_is_our_dbcache():
    class DBCacheConfig:
        Fn_compute_blocks, Bn_compute_blocks, residual_diff_threshold, max_warmup_steps = 2, 1, 0.12, 4
        max_cached_steps, max_continuous_cached_steps, steps_computation_mask = -1, 3, [1, 0, 0, 1]

    plan = omnicache.methods()["dbcache"].plan(front=2, back=1, threshold=0.12, warmup=4, longest=3, mask="#..#")
    assert translate(DBCacheConfig()).policies == plan.policies


@pytest.mark.parametrize("threshold", [0.02, 0.2])
def test_magcache_of_diffusers_reuses_the_same_steps_and_values(threshold):
    loop = Loop("FluxTransformer2DModel", DENOISERS["FluxTransformer2DModel"])
    ratios = [1.0 + 0.01 * ((7 * i) % 5 - 1) for i in range(14)]
    config = diffusers.MagCacheConfig(threshold=threshold, num_inference_steps=14, mag_ratios=ratios)
    plain = loop(steps=14)
    with omnicache.cache(loop, config) as ours:
        out = loop(steps=14)
    assert "." in ours.computed and ours.computed.startswith("###")
    loop.transformer.enable_cache(config)
    with loop.transformer.cache_context("one"):
        theirs = loop(steps=14)
    assert difference(plain, theirs) > 1e-3
    assert difference(theirs, out) < 1e-4


def test_seacache_of_diffusers_is_ours_on_the_latents():
    plan = translate(diffusers.SeaCacheConfig(threshold=0.4, max_consecutive_cached=0, cache_end_steps=2))
    ours = omnicache.methods()["seacache"].plan(threshold=0.4, of="latent", power=3.0, order=1, tail=2)
    assert plan is not None and plan.policies == ours.policies


def test_what_only_measures_or_holds_code_is_refused():
    with pytest.raises(OmniCacheError, match=r'omnicache.calibrate\(pipe, inputs, "magcache"\)'):
        translate(diffusers.MagCacheConfig(calibrate=True))
    with pytest.raises(OmniCacheError, match="by code"):
        translate(diffusers.SeaCacheConfig(raw_vision_callback=lambda *_: []))
