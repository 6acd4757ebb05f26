"""diffusers' own pipelines around tiny random parts, and the questions that every way of use is asked.

Nothing is downloaded: prompts are given as embeddings, so there is no text encoder, and everything else is built on the spot.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import torch
from tests.tiny import built
from torch import Tensor, nn

import omnicache

from ..methods.tiny import counted, ddim

STEPS = 6
METHODS = {
    "unet": [("deepcache", {"interval": 3})],
    "transformer": [
        ("taylorseer", {"interval": 3, "warmup": 2}),
        ("fora", {"interval": 3}),
        ("teacache", {"threshold": 1e9}),
    ],
}
"""What each kind of denoiser is cached by here: values of a stack, of modules in blocks, and by what the first block is given."""

EACH = DEEP, STACK, PARTS, WATCHED = [(family, *method) for family, methods in METHODS.items() for method in methods]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# --- parts -----------------------------------------------------------------------------------------------------------------


def autoencoder(channels: int = 4) -> diffusers.AutoencoderKL:
    """As many latents as pixels: a picture of 8 x 8 is what a model of that size draws."""
    torch.manual_seed(0)
    shape = {"block_out_channels": (4,), "norm_num_groups": 2, "layers_per_block": 1, "latent_channels": channels}
    return diffusers.AutoencoderKL(**shape, scaling_factor=1.0, shift_factor=0.0).eval()


def sd_unet() -> nn.Module:
    """Two levels of one layer each, with cross-attention in the upper one and in the middle."""
    kinds = {"down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D")}
    size = {"sample_size": 8, "block_out_channels": (8, 16), "norm_num_groups": 4, "layers_per_block": 1}
    model = built(lambda: diffusers.UNet2DConditionModel(attention_head_dim=4, cross_attention_dim=8, **size, **kinds))
    return model.requires_grad_(False)


def sd3_transformer() -> nn.Module:
    """Three blocks of two streams; sixteen channels, because the pipeline for inpainting insists on them."""
    text = {"joint_attention_dim": 8, "caption_projection_dim": 16, "pooled_projection_dim": 8, "pos_embed_max_size": 16}
    shape = {"sample_size": 8, "patch_size": 2, "in_channels": 16, "out_channels": 16}
    size = {"num_layers": 3, "attention_head_dim": 8, "num_attention_heads": 2}
    return built(lambda: diffusers.SD3Transformer2DModel(**size, **shape, **text)).requires_grad_(False)


def parts(family: str) -> dict[str, Any]:
    """All that a pipeline of Stable Diffusion (``unet``) or Stable Diffusion 3 (``transformer``) is made of."""
    if family == "unet":
        none = dict.fromkeys(("text_encoder", "tokenizer", "safety_checker", "feature_extractor"))
        return {**none, "unet": sd_unet(), "vae": autoencoder(), "scheduler": ddim()}
    none = dict.fromkeys(f"{kind}{n}" for kind in ("text_encoder", "tokenizer") for n in ("", "_2", "_3"))
    flow = diffusers.FlowMatchEulerDiscreteScheduler()
    return {**none, "transformer": sd3_transformer(), "vae": autoencoder(16), "scheduler": flow}


NAMES = {"unet": "StableDiffusion", "transformer": "StableDiffusion3"}


def pipeline(family: str, task: str = "", given: dict[str, Any] | None = None, **more: Any) -> Any:
    """``StableDiffusionImg2ImgPipeline`` and its like; ``given`` are the parts of another one, to be shared."""
    kind = getattr(diffusers, f"{NAMES[family]}{task}Pipeline")
    own = {"requires_safety_checker": False} if family == "unet" else {}
    made = kind(**{**(given or parts(family)), **own, **more})
    made.set_progress_bar_config(disable=True)
    return made


def denoiser(pipe: Any) -> Any:
    return pipe.unet if hasattr(pipe, "unet") else pipe.transformer


# --- calls -----------------------------------------------------------------------------------------------------------------


def prompt(family: str, label: int = 1, count: int = 1) -> dict[str, Tensor]:
    """What a text encoder would have made of a prompt, and of an empty one."""
    both = {"prompt_embeds": drawn(count, 5, 8, seed=label), "negative_prompt_embeds": drawn(count, 5, 8, seed=99)}
    if family == "transformer":
        pooled = {"pooled_prompt_embeds": drawn(count, 8, seed=label), "negative_pooled_prompt_embeds": drawn(count, 8, seed=99)}
        return {**both, **pooled}
    return both


def family_of(pipe: Any) -> str:
    return "unet" if hasattr(pipe, "unet") else "transformer"


def draw(pipe: Any, label: int = 1, count: int = 1, **more: Any) -> Tensor:
    """Pictures, from as many seeds."""
    torch.manual_seed(0)  # the encoder of a ControlNet's picture draws without being handed a generator
    seeds = [torch.Generator().manual_seed(i) for i in range(count)]
    call = {"num_inference_steps": STEPS, "guidance_scale": 3.0, "output_type": "pt", "generator": seeds}
    if "image" not in more:
        call |= {"height": 8, "width": 8}
    return pipe(**{**prompt(family_of(pipe), label, count), **call, **more}).images


# --- questions -------------------------------------------------------------------------------------------------------------


def block(pipe: Any) -> str:
    """The name of a module that every method passes over at a reused step, or whose parts it does."""
    return "mid_block" if family_of(pipe) == "unet" else "transformer_blocks.1.ff"


def ask(pipe: Any, method: str, options: dict[str, Any], run: Callable[[], Tensor], work: str = "") -> Tensor:
    """Whether a way of use holds: a plan that computes everything changes nothing, the method saves work, and it goes away.

    Work is counted by hooks on the module ``work``, not by the trace. Returns the cached pictures.
    """
    off, work = omnicache.methods()[method].off, work or block(pipe)
    with counted(denoiser(pipe)) as calls:
        plain = run()
    whole = calls[work]
    assert whole > 0
    with omnicache.cache(pipe, method, **off):
        assert torch.equal(run(), plain), "a plan that computes everything changes nothing"
    with omnicache.cache(pipe, method, **options) as seen, counted(denoiser(pipe)) as calls:
        cached = run()
    assert 0 < calls[work] < whole, "work is saved"
    assert "." in seen.computed or "o" in seen.computed
    assert torch.isfinite(cached).all()
    assert not torch.equal(cached, plain)
    assert torch.equal(run(), plain), "nothing is left behind"
    return cached
