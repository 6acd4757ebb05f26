"""What was released for known models goes to those models."""

from types import SimpleNamespace

import pytest
from diffusers import CogVideoXTransformer3DModel, FluxTransformer2DModel, WanTransformer3DModel

import omnicache
from omnicache.errors import OmniCacheError
from omnicache.fingerprint import kinds

SMALL = {"num_attention_heads": 1, "attention_head_dim": 16}


def wan(layers: int = 40, **config):
    return WanTransformer3DModel(num_layers=layers, text_dim=4, freq_dim=4, ffn_dim=4, added_kv_proj_dim=None, **SMALL, **config)


def cogvideox(layers: int = 42, **config):
    return CogVideoXTransformer3DModel(num_layers=layers, time_embed_dim=4, text_embed_dim=4, **SMALL, **config)


def flux(**config):
    sizes = {"num_layers": 19, "num_single_layers": 38, "joint_attention_dim": 4, "pooled_projection_dim": 4}
    return FluxTransformer2DModel(**sizes, **SMALL, axes_dims_rope=(4, 4, 8), **config)


def found(method: str, *models) -> str | None:
    pipe = SimpleNamespace(components=dict(zip(("transformer", "transformer_2"), models, strict=False)))
    return omnicache.methods()[method].plan_for(kinds(pipe)).options["model"]


@pytest.mark.parametrize(
    ("build", "config", "name"),
    [
        (wan, {}, "wan2.1-t2v-14b"),
        (wan, {"in_channels": 36, "image_dim": 1280}, "wan2.1-i2v-480p"),
        (wan, {"in_channels": 36, "image_dim": 1280, "pos_embed_seq_len": 514}, None),  # first and last frame
        (wan, {"in_channels": 36}, None),  # Wan2.2
        (wan, {"layers": 30}, "wan2.1-t2v-1.3b"),
        (wan, {"layers": 30, "in_channels": 48}, None),  # Wan2.2-TI2V-5B
        (cogvideox, {}, "cogvideox-5b"),
        (cogvideox, {"patch_size_t": 2}, "cogvideox1.5-5b"),
        (cogvideox, {"patch_size_t": 2, "in_channels": 32}, "cogvideox1.5-5b-i2v"),
        (flux, {"guidance_embeds": True}, "flux.1-dev"),
        (flux, {}, None),  # schnell
        (flux, {"guidance_embeds": True, "in_channels": 384}, None),  # Fill
    ],
)
def test_a_model_is_told_by_its_class_blocks_and_configuration(build, config, name):
    assert found("teacache", build(**config)) == name


def test_two_experts_are_another_model():
    assert found("teacache", wan(), wan()) is None
    assert omnicache.methods()["easycache"].plan_for(kinds(wan())).options["warmup"] == 10  # for all of a class


def test_what_was_taken_for_a_look_alike_is_said_and_another_can_be_chosen():
    kontext = flux(guidance_embeds=True)  # just as FLUX.1-dev
    with omnicache.cache(kontext, "magcache") as run:
        assert any("released for flux.1-dev is used" in note and "model=..." in note for note in run.trace.notes)
        assert run.plan.options["longest"] == 5
    with omnicache.cache(kontext, "magcache", model="flux.1-kontext") as run:
        assert run.trace.notes == []
        assert run.plan.options["longest"] == 4
    with omnicache.cache(kontext, "fora") as run:
        assert run.trace.notes == []
    with pytest.raises(OmniCacheError, match="needs the ratios"):
        omnicache.enable(flux(), "magcache")
