"""What is put on a denoiser: LoRA loaded, switched, fused and unloaded; IP-Adapters; ControlNets beside it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import diffusers
import pytest
import torch
from tests.tiny import built

import omnicache
from omnicache.api import plan_of
from omnicache.fingerprint import checkpoint, fingerprint

from .parts import DEEP, PARTS, STACK, ask, draw, drawn, family_of, parts, pipeline

peft = pytest.importorskip("peft")

Weights = dict[str, torch.Tensor]


def lora(family: str, seed: int) -> Weights:
    """A file of LoRA weights as ``load_lora_weights`` reads it, for attention and feed-forward layers."""
    model = parts(family)[family]
    torch.manual_seed(seed)
    layers = ["to_q", "to_k", "to_v", "net.0.proj"]
    model.add_adapter(peft.LoraConfig(r=2, lora_alpha=8, target_modules=layers, init_lora_weights=False))
    return {f"{family}.{name}": w for name, w in peft.get_peft_model_state_dict(model).items()}


def fresh(family: str, method: str, options: dict[str, Any], weights: Weights | None) -> torch.Tensor:
    """What a new pipeline draws that never had any other LoRA."""
    pipe = pipeline(family)
    if weights is not None:
        pipe.load_lora_weights(dict(weights), adapter_name="x")
    with omnicache.cache(pipe, method, **options):
        return draw(pipe)


@pytest.mark.parametrize(("family", "method", "options"), [DEEP, PARTS])
def test_lora_loaded_before(family, method, options):
    pipe = pipeline(family)
    without = draw(pipe)
    pipe.load_lora_weights(lora(family, 1))
    ask(pipe, method, options, lambda: draw(pipe))
    assert not torch.equal(draw(pipe), without), "it does something"


@pytest.mark.parametrize(("family", "method", "options"), [STACK])
def test_lora_loaded_switched_fused_and_unloaded_between_runs(family, method, options):
    """Each run is that of a new pipeline with the same LoRA and plan, to the bit: nothing of the one before is reused."""
    a, b = lora(family, 1), lora(family, 2)
    wanted = {name: fresh(family, method, options, weights) for name, weights in {"": None, "a": a, "b": b}.items()}
    assert not torch.equal(wanted["a"], wanted["b"])
    pipe = pipeline(family)
    plain = draw(pipe)
    run = omnicache.enable(pipe, method, **options)
    assert torch.equal(draw(pipe), wanted[""])
    pipe.load_lora_weights(dict(a), adapter_name="a")
    assert torch.equal(draw(pipe), wanted["a"])
    pipe.load_lora_weights(dict(b), adapter_name="b")
    pipe.set_adapters("b")
    assert torch.equal(draw(pipe), wanted["b"])
    pipe.set_adapters("a")
    assert torch.equal(draw(pipe), wanted["a"])
    pipe.disable_lora()
    assert torch.equal(draw(pipe), wanted[""])
    pipe.enable_lora()
    pipe.fuse_lora(adapter_names=["a"])
    torch.testing.assert_close(draw(pipe), wanted["a"], atol=1e-4, rtol=1e-3)
    pipe.unfuse_lora()
    pipe.unload_lora_weights()
    torch.testing.assert_close(draw(pipe), wanted[""], atol=1e-4, rtol=1e-3)  # unfusing rounds
    assert "." in run.computed or "o" in run.computed
    omnicache.disable(pipe)
    torch.testing.assert_close(draw(pipe), plain, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(("family", "method", "options"), [DEEP, PARTS])
def test_lora_switched_after_a_run_that_was_cancelled(family, method, options):
    """What the cancelled run had kept was made with the other LoRA."""
    a, b = lora(family, 1), lora(family, 2)
    wanted, pipe = fresh(family, method, options, b), pipeline(family)
    pipe.load_lora_weights(dict(a), adapter_name="a")
    pipe.load_lora_weights(dict(b), adapter_name="b")
    pipe.set_adapters("a")

    def stop(pipe: Any, i: int, t: Any, given: dict[str, Any]) -> dict[str, Any]:
        pipe._interrupt = i >= 3
        return given

    with omnicache.cache(pipe, method, **options):
        draw(pipe, callback_on_step_end=stop)
        pipe.set_adapters("b")
        assert torch.equal(draw(pipe), wanted)


def test_a_calibrated_plan_serves_its_model_with_a_lora_loaded():
    """What LoRA adds is no part of the model that the plan was made for; loading it before or after ``enable`` is the same."""
    pipe = pipeline("transformer")
    made_for = {**fingerprint(pipe.transformer), "weights": checkpoint(pipe.transformer)}
    plan = replace(plan_of("taylorseer", interval=3, warmup=2), made_for=made_for)
    pipe.load_lora_weights(lora("transformer", 1))
    assert {d.verdict for d in omnicache.check(pipe, plan)} == {"fine"}
    with omnicache.cache(pipe, plan):
        before = draw(pipe)
    pipe = pipeline("transformer")
    with omnicache.cache(pipe, plan) as run:
        pipe.load_lora_weights(lora("transformer", 1))
        assert torch.equal(draw(pipe), before)
        assert "." in run.computed


# --- IP-Adapter ------------------------------------------------------------------------------------------------------------


def ip_adapter(model: Any, seed: int) -> dict[str, Weights]:
    """A file of an IP-Adapter for a U-Net, whose picture embeddings are 12 wide and become four words."""
    torch.manual_seed(seed)
    width, attention = model.config.cross_attention_dim, {}
    cross = [name for name in model.attn_processors if name.endswith("attn2.processor")]
    for i, name in enumerate(cross):
        out = model.get_submodule(name.removesuffix(".processor")).to_k.out_features
        attention |= {f"{2 * i + 1}.to_{x}_ip.weight": torch.randn(out, width) for x in "kv"}
    project = {"proj.weight": torch.randn(4 * width, 12), "proj.bias": torch.randn(4 * width)}
    return {"ip_adapter": attention, "image_proj": {**project, "norm.weight": torch.ones(width), "norm.bias": torch.zeros(width)}}


def test_ip_adapter():
    pipe = pipeline("unet")
    plain, wanted = draw(pipe), []
    with omnicache.cache(pipe, "deepcache", interval=3):
        without = draw(pipe)
    pictures = {n: [torch.cat([torch.zeros(1, 1, 12), drawn(1, 1, 12, seed=n)])] for n in (1, 2)}
    pipe.unet._load_ip_adapter_weights([ip_adapter(pipe.unet, 1)])
    wanted.append(ask(pipe, "deepcache", {"interval": 3}, lambda: draw(pipe, ip_adapter_image_embeds=pictures[1])))
    with omnicache.cache(pipe, "deepcache", interval=3):
        wanted.append(draw(pipe, ip_adapter_image_embeds=pictures[2]))
    assert not torch.equal(*wanted)

    other = pipeline("unet")
    with omnicache.cache(other, "deepcache", interval=3):
        assert torch.equal(draw(other), without)
        other.unet._load_ip_adapter_weights([ip_adapter(other.unet, 1)])
        assert torch.equal(draw(other, ip_adapter_image_embeds=pictures[1]), wanted[0])
        assert torch.equal(draw(other, ip_adapter_image_embeds=pictures[2]), wanted[1])
        other.set_ip_adapter_scale(0.0)
        torch.testing.assert_close(draw(other, ip_adapter_image_embeds=pictures[2]), without, atol=1e-4, rtol=1e-3)
        other.unload_ip_adapter()
        assert torch.equal(draw(other), without)
    assert torch.equal(draw(other), plain)


# --- ControlNet ------------------------------------------------------------------------------------------------------------


def controlnet(pipe: Any) -> Any:
    if family_of(pipe) == "unet":
        return built(lambda: diffusers.ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=(4,)))
    return built(
        lambda: diffusers.SD3ControlNetModel.from_transformer(
            pipe.transformer, num_layers=2, num_extra_conditioning_channels=0, load_weights_from_transformer=False
        )
    )


@pytest.mark.parametrize(("family", "method", "options"), [DEEP, STACK])
def test_controlnet(family, method, options):
    base = pipeline(family)
    pipe = pipeline(family, "ControlNet", {**base.components, "controlnet": controlnet(base)})
    name = "image" if family == "unet" else "control_image"
    sketches = {n: {name: drawn(1, 3, 8, 8, seed=n).sigmoid(), "height": 8, "width": 8} for n in (1, 2)}
    one = ask(pipe, method, options, lambda: draw(pipe, **sketches[1]))
    with omnicache.cache(pipe, method, **options):
        two = draw(pipe, **sketches[2])
    assert not torch.equal(one, two), "it does something"
    with omnicache.cache(pipe, method, **options):  # another sketch, another weight, and none, one after the other
        assert torch.equal(draw(pipe, **sketches[1]), one)
        draw(pipe, **sketches[1], controlnet_conditioning_scale=0.3)
        draw(base)
        assert torch.equal(draw(pipe, **sketches[2]), two)


@pytest.mark.parametrize(("family", "method", "options"), [PARTS])
def test_a_controlnet_that_ends_halfway(family, method, options):
    """The samples of a ControlNet are zeroed, or gone, from the middle of the run on."""
    base = pipeline(family)
    pipe = pipeline(family, "ControlNet", {**base.components, "controlnet": controlnet(base)})
    name = "image" if family == "unet" else "control_image"
    given = {name: drawn(1, 3, 8, 8).sigmoid(), "height": 8, "width": 8, "control_guidance_end": 0.5}
    ask(pipe, method, options, lambda: draw(pipe, **given))
