"""Tiny random models of six kinds, and the loop that samples from them.

Weights are drawn anew with a real spread, gates included: with an untrained zero gate a cached value would change nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from diffusers.models.embeddings import Timesteps
from torch import nn

from omnicache.policy import Decision, Moment, Signal, Trigger, value
from omnicache.signals import LatentChange

STEPS = {"first": 10, "second": 6}
"""Sampler steps; a second-order solver evaluates the model 2n - 1 times."""

CLASSES = 1000
Kwargs = dict[str, torch.Tensor]


def dit() -> nn.Module:
    return diffusers.DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=3, sample_size=8, patch_size=2
    )


def sd3() -> nn.Module:
    sizes = {"joint_attention_dim": 12, "caption_projection_dim": 16, "pooled_projection_dim": 12, "pos_embed_max_size": 8}
    return diffusers.SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, num_layers=3, attention_head_dim=8, num_attention_heads=2, **sizes
    )


def latte() -> nn.Module:
    return diffusers.LatteTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        cross_attention_dim=16,
        sample_size=8,
        patch_size=2,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        num_embeds_ada_norm=CLASSES,
        caption_channels=12,
        video_length=3,
    )


def unet() -> nn.Module:
    return diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=12,
        attention_head_dim=4,
        norm_num_groups=4,
    )


def unet2d() -> nn.Module:
    return diffusers.UNet2DModel(
        sample_size=8,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
        norm_num_groups=4,
        num_class_embeds=CLASSES + 1,
    )


def svd() -> nn.Module:
    return diffusers.UNetSpatioTemporalConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        num_frames=3,
        block_out_channels=(32, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        cross_attention_dim=12,
        num_attention_heads=(2, 2),
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=24,
    )


def drawn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def by_class(label: int | None) -> Kwargs:
    return {"class_labels": torch.tensor([CLASSES if label is None else label])}


def by_text(label: int | None) -> Kwargs:
    return {"encoder_hidden_states": drawn(1, 5, 12, seed=900 if label is None else label)}


def by_text_and_pool(label: int | None) -> Kwargs:
    return {**by_text(label), "pooled_projections": drawn(1, 12, seed=901 if label is None else label + 1)}


def by_picture(label: int | None) -> Kwargs:
    """A single token, none of which is zero, and three numbers about the clip."""
    token = torch.zeros(1, 1, 12) if label is None else drawn(1, 1, 12, seed=label)
    return {"encoder_hidden_states": token, "added_time_ids": torch.tensor([[6.0, 127.0, 0.02]])}


@dataclass(frozen=True)
class Kind:
    """One architecture: how to build it, what a sample looks like, and how it is told what to draw."""

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    condition: Callable[[int | None], Kwargs]
    family: str = "transformer"
    flow: bool = False
    contexts: bool = False
    rare: bool = False
    """Whether it stands for few models only, and is drawn with by the methods that are for them."""

    def blocks(self, model: nn.Module) -> list[nn.Module]:
        """The blocks of a transformer, or what lies deep in a U-Net."""
        if self.family == "unet":
            return [model.mid_block]
        return [*model.transformer_blocks, *getattr(model, "temporal_transformer_blocks", ())]

    def guidances(self) -> tuple[str, ...]:
        return ("batched", "calls", "contexts") if self.contexts else ("batched", "calls")


KINDS = {
    "dit": Kind(dit, (4, 8, 8), by_class),
    "sd3": Kind(sd3, (4, 8, 8), by_text_and_pool, flow=True),
    "latte": Kind(latte, (4, 3, 8, 8), by_text, contexts=True),
    "unet": Kind(unet, (4, 8, 8), by_text, family="unet"),
    "unet2d": Kind(unet2d, (3, 8, 8), by_class, family="unet"),
    "svd": Kind(svd, (3, 4, 8, 8), by_picture, family="unet", rare=True),
}


def evaluations(steps: int, solver: str) -> int:
    return steps if solver == "first" else 2 * steps - 1


def scheduler(flow: bool, solver: str) -> Any:
    if flow:
        return diffusers.FlowMatchEulerDiscreteScheduler() if solver == "first" else diffusers.FlowMatchHeunDiscreteScheduler()
    return diffusers.DDIMScheduler(clip_sample=False) if solver == "first" else diffusers.HeunDiscreteScheduler()


def built(build: Callable[[], nn.Module]) -> nn.Module:
    """The model with every weight drawn anew: matrices keep the size of what they get, the rest spreads around its default."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model = build()
        for p in model.parameters():
            p.copy_(torch.randn(p.shape) / math.sqrt(p[0].numel()) if p.ndim > 1 else p + 0.1 * torch.randn(p.shape))
    return model.eval()


def deaf(model: nn.Module) -> None:
    """From now on the model does not hear what time it is."""
    for module in model.modules():
        if isinstance(module, Timesteps):
            module.register_forward_pre_hook(lambda _, given: (torch.zeros_like(given[0]), *given[1:]))


class Pipe:
    """What ``omnicache`` needs of a pipeline: a denoiser under its usual name, and a scheduler."""

    def __init__(self, kind: str, solver: str = "first", model: nn.Module | None = None):
        self.kind, self.solver = KINDS[kind], solver
        self.scheduler = scheduler(self.kind.flow, solver)
        self.model = built(self.kind.build) if model is None else model
        setattr(self, "unet" if self.kind.family == "unet" else "transformer", self.model)

    @property
    def total(self) -> int:
        """Evaluations of the model in a run."""
        return evaluations(STEPS[self.solver], self.solver)

    def pipeline(self) -> diffusers.DiTPipeline:
        """The real pipeline around a DiT."""
        vae = built(lambda: diffusers.AutoencoderKL(block_out_channels=(4,), norm_num_groups=2, layers_per_block=1))
        pipe = diffusers.DiTPipeline(transformer=self.model, vae=vae, scheduler=self.scheduler)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def noise(self, seed: int) -> torch.Tensor:
        return drawn(1, *self.kind.shape, seed=seed)


@torch.no_grad()
def picture(pipeline: diffusers.DiTPipeline, solver: str) -> torch.Tensor:
    """What a user of the real pipeline gets."""
    seed = torch.Generator().manual_seed(0)
    size = {"num_inference_steps": STEPS[solver], "guidance_scale": 2.0, "output_type": "pt"}
    return pipeline(class_labels=[1], generator=seed, **size).images


Watch = Callable[[int, dict[str, Any], torch.Tensor], None]


@torch.no_grad()
def sample(
    pipe: Pipe,
    guidance: str = "batched",
    *,
    labels: tuple[int, ...] = (1,),
    seeds: tuple[int, ...] = (0,),
    scale: float = 2.0,
    swap: bool = False,
    turn: bool = False,
    anew: bool = False,
    own: Any = None,
    still: bool = False,
    watch: Watch | None = None,
    after: Callable[[int, torch.Tensor], torch.Tensor | None] | None = None,
) -> torch.Tensor:
    """Latents of one run.

    Args:
        guidance: "batched" (both halves in one call), "calls" (two calls), "contexts" (two calls with names).
        swap: the unconditional half, or call, first.
        turn: two calls change places after every step.
        anew: the condition is a new tensor at every call, the missing one always the same.
        own: a scheduler to use in place of the pipeline's.
        still: always show the model the first input; if it is ``deaf``, none of its features ever changes then.
        watch: called after each evaluation with the step, the model's arguments and its output.
        after: called after each step of the scheduler; may return other latents to go on with.
    """
    sampler = pipe.scheduler if own is None else own
    sampler.set_timesteps(STEPS[pipe.solver])
    x = torch.cat([pipe.noise(s) for s in seeds]).to(pipe.model.dtype) * getattr(sampler, "init_noise_sigma", 1.0)
    given: dict[Any, dict[str, Kwargs]] = {}
    first: dict[str, torch.Tensor] = {}

    def conditions(like: torch.Tensor) -> dict[str, Kwargs]:
        if (found := given.get((len(like), like.dtype))) is None:
            names = [labels[i % len(labels)] for i in range(len(like))]
            both = {"cond": [pipe.kind.condition(n) for n in names], "uncond": [pipe.kind.condition(None) for _ in names]}
            found = {k: _joined(v, like.dtype) for k, v in both.items()}
            found["batched"] = _joined([found[n] for n in _order(swap)], like.dtype)
            given[len(like), like.dtype] = found
        return found

    def call(name: str, i: int, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        named = pipe.model.cache_context(name) if guidance == "contexts" else nullcontext()
        shown = first.setdefault(name, x) if still else x
        told = conditions(x if name != "batched" else x[::2])[name]
        if anew and name == "cond":
            told = {k: v.clone() for k, v in told.items()}
        arguments = {"hidden_states" if pipe.kind.family != "unet" else "sample": shown, "timestep": t.expand(len(x)), **told}
        with named:
            out = pipe.model(**arguments).sample
        if watch is not None:
            watch(i, arguments, out)
        return out

    for i, t in enumerate(sampler.timesteps):
        shown = sampler.scale_model_input(x, t) if hasattr(sampler, "scale_model_input") else x
        if guidance == "batched":
            halves = dict(zip(_order(swap), call("batched", i, torch.cat([shown, shown]), t).chunk(2), strict=True))
        else:
            halves = {name: call(name, i, shown, t) for name in _order(swap ^ (turn and i % 2 == 1))}
        guided = halves["uncond"] + scale * (halves["cond"] - halves["uncond"])
        x = sampler.step(guided[:, : x.shape[1]], t, x, return_dict=False)[0]
        if after is not None and (other := after(i, x)) is not None:
            x = other
    if not torch.isfinite(x).all():
        raise FloatingPointError("the latents are no numbers")
    return x


def _order(swap: bool) -> tuple[str, str]:
    return ("uncond", "cond") if swap else ("cond", "uncond")


def _joined(parts: list[Kwargs], dtype: torch.dtype) -> Kwargs:
    """Conditions one after the other in one batch."""
    joined = {name: torch.cat([p[name] for p in parts]) for name in parts[0]}
    return {name: v.to(dtype) if v.is_floating_point() else v for name, v in joined.items()}


@value
class Always(Trigger):
    """Computes every step, which nobody foresees: so everything is kept all the same."""

    @property
    def signals(self) -> tuple[Signal, ...]:  # type: ignore[override]
        return (LatentChange(),)

    def decide(self, state: Any, moment: Moment) -> tuple[Decision, Any]:
        return Decision.COMPUTE, state
