"""What caching saves at real sizes: five published architectures with random weights, one denoising run each way.

    python benchmarks/full_size.py [--minutes 7.5] [--only sd3-medium] [--out benchmarks/results/full_size.json]
    python benchmarks/full_size.py --tiny --device cpu          # every architecture scaled down: does the script work?
    python benchmarks/full_size.py --check                      # at full size on no device at all: do sizes and shapes fit?

SD3-medium, SVD-XT, Latte-1, FLUX.1-dev and CogVideoX-5b at the size and with the scheduler and step count that their authors name,
in bfloat16, conditions included, without text encoders and decoders, whose time no cache changes. How long a run takes does not
depend on what the weights are, so nothing is downloaded and nothing is said about quality. Two things do depend on it: teacache's
threshold, so it is calibrated on the spot to reuse half of the steps, and which layers a layered plan spares, so an even spread
stands in for its profile.

Rounds are interleaved: uncached, then every cache, and so on; a speed-up is a ratio within a round. Times are between device
events. Where the time does not suffice the number of steps is lowered, which is stated (``steps`` against ``full_steps``): then
caches look a little worse than they are, because their first steps, which are computed, weigh more.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import nn

import omnicache
from omnicache import registry
from omnicache.granularity import Layers
from omnicache.kernels import dispatch
from omnicache.measure.comparison import environment, rounded
from omnicache.models.discover import discover
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.predictors import Hold, Residual
from omnicache.triggers import Table

INTERVAL = 5
"""Layered Cache recomputes everything at every fifth step, as in its paper."""
WARM = 7
"""Steps of a first run, which is broken off: enough to compute and to reuse."""


@dataclass(frozen=True)
class Architecture:
    """A published model: its denoiser's configuration as released, and what one evaluation is given.

    Attributes:
        denoiser: its class in diffusers.
        config: as in the released ``config.json``; ``tiny`` is what a small one has otherwise.
        billions: of parameters.
        scheduler: the class and the released configuration.
        steps: of one run.
        latents: their shape, guidance not counted; ``small`` is that of a small one.
        guided: whether a second half of the batch carries the negative prompt.
        minutes: its part of the time, of eight.
        spatial: ``omnicache-md``'s options, from its paper where it has this model.
        layered: shares of layers times steps that layered plans reuse.
    """

    name: str
    denoiser: str
    config: dict[str, Any]
    tiny: dict[str, Any]
    billions: float
    scheduler: tuple[str, dict[str, Any]]
    steps: int
    latents: tuple[int, ...]
    small: tuple[int, ...]
    guided: bool
    minutes: float
    spatial: tuple[dict[str, float], ...] = ()
    layered: tuple[float, ...] = (0.5,)


SD3 = Architecture(
    name="sd3-medium",
    denoiser="SD3Transformer2DModel",
    config={
        "sample_size": 128,
        "patch_size": 2,
        "in_channels": 16,
        "out_channels": 16,
        "num_layers": 24,
        "attention_head_dim": 64,
        "num_attention_heads": 24,
        "joint_attention_dim": 4096,
        "caption_projection_dim": 1536,
        "pooled_projection_dim": 2048,
        "pos_embed_max_size": 192,
    },
    tiny={
        "sample_size": 16,
        "num_layers": 3,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "joint_attention_dim": 16,
        "caption_projection_dim": 16,
        "pooled_projection_dim": 16,
        "pos_embed_max_size": 16,
    },
    billions=2.028,
    scheduler=("FlowMatchEulerDiscreteScheduler", {"num_train_timesteps": 1000, "shift": 3.0}),
    steps=28,
    latents=(1, 16, 128, 128),
    small=(1, 16, 16, 16),
    guided=True,
    minutes=1.5,
    spatial=({"token": 0.4}, {"token": 0.5}, {"token": 0.6}),
    layered=(0.43, 0.6),  # ideally 1.75 and 2.5 times as fast
)
SVD = Architecture(
    name="svd-xt",
    denoiser="UNetSpatioTemporalConditionModel",
    config={
        "sample_size": 96,
        "in_channels": 8,
        "out_channels": 4,
        "down_block_types": ("CrossAttnDownBlockSpatioTemporal",) * 3 + ("DownBlockSpatioTemporal",),
        "up_block_types": ("UpBlockSpatioTemporal",) + ("CrossAttnUpBlockSpatioTemporal",) * 3,
        "block_out_channels": (320, 640, 1280, 1280),
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 768,
        "layers_per_block": 2,
        "cross_attention_dim": 1024,
        "transformer_layers_per_block": 1,
        "num_attention_heads": (5, 10, 20, 20),
        "num_frames": 25,
    },
    tiny={
        "sample_size": 8,
        "block_out_channels": (32, 32, 64, 64),
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 24,
        "cross_attention_dim": 16,
        "num_attention_heads": (2, 2, 4, 4),
        "layers_per_block": 1,
        "num_frames": 4,
    },
    billions=1.525,
    scheduler=(
        "EulerDiscreteScheduler",
        {
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "beta_schedule": "scaled_linear",
            "num_train_timesteps": 1000,
            "prediction_type": "v_prediction",
            "interpolation_type": "linear",
            "use_karras_sigmas": True,
            "sigma_min": 0.002,
            "sigma_max": 700.0,
            "steps_offset": 1,
            "timestep_spacing": "leading",
            "timestep_type": "continuous",
        },
    ),
    steps=25,
    latents=(1, 25, 4, 72, 128),
    small=(1, 4, 4, 8, 8),
    guided=True,
    minutes=2.5,
    spatial=({"token": 0.5, "frame": 0.5, "block": 0.4},),
)
LATTE = Architecture(
    name="latte-1",
    denoiser="LatteTransformer3DModel",
    config={
        "num_attention_heads": 16,
        "attention_head_dim": 72,
        "in_channels": 4,
        "out_channels": 8,
        "num_layers": 28,
        "cross_attention_dim": 1152,
        "attention_bias": True,
        "sample_size": 64,
        "patch_size": 2,
        "activation_fn": "gelu-approximate",
        "num_embeds_ada_norm": 1000,
        "norm_type": "ada_norm_single",
        "norm_elementwise_affine": False,
        "norm_eps": 1e-6,
        "caption_channels": 4096,
        "video_length": 16,
    },
    tiny={
        "num_attention_heads": 2,
        "attention_head_dim": 8,
        "num_layers": 2,
        "cross_attention_dim": 16,
        "sample_size": 8,
        "caption_channels": 16,
        "video_length": 4,
    },
    billions=1.057,
    scheduler=(
        "DDIMScheduler",
        {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear", "num_train_timesteps": 1000, "clip_sample": False},
    ),
    steps=50,
    latents=(1, 4, 16, 64, 64),
    small=(1, 4, 4, 8, 8),
    guided=True,
    minutes=1.0,
    spatial=({"token": 0.2, "frame": 0.3, "block": 0.4},),
)
FLUX = Architecture(
    name="flux.1-dev",
    denoiser="FluxTransformer2DModel",
    config={
        "patch_size": 1,
        "in_channels": 64,
        "num_layers": 19,
        "num_single_layers": 38,
        "attention_head_dim": 128,
        "num_attention_heads": 24,
        "joint_attention_dim": 4096,
        "pooled_projection_dim": 768,
        "guidance_embeds": True,
        "axes_dims_rope": (16, 56, 56),
    },
    tiny={
        "in_channels": 8,
        "num_layers": 2,
        "num_single_layers": 3,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "joint_attention_dim": 16,
        "pooled_projection_dim": 16,
        "axes_dims_rope": (2, 2, 4),
    },
    billions=11.901,
    scheduler=(
        "FlowMatchEulerDiscreteScheduler",
        {
            "num_train_timesteps": 1000,
            "shift": 3.0,
            "use_dynamic_shifting": True,
            "base_shift": 0.5,
            "max_shift": 1.15,
            "base_image_seq_len": 256,
            "max_image_seq_len": 4096,
        },
    ),
    steps=28,
    latents=(1, 4096, 64),
    small=(1, 64, 8),
    guided=False,
    minutes=1.1,
    spatial=({"token": 0.4},),
)
COGVIDEOX = Architecture(
    name="cogvideox-5b",
    denoiser="CogVideoXTransformer3DModel",
    config={
        "num_attention_heads": 48,
        "attention_head_dim": 64,
        "in_channels": 16,
        "out_channels": 16,
        "time_embed_dim": 512,
        "text_embed_dim": 4096,
        "num_layers": 42,
        "sample_width": 90,
        "sample_height": 60,
        "sample_frames": 49,
        "patch_size": 2,
        "temporal_compression_ratio": 4,
        "max_text_seq_length": 226,
        "use_rotary_positional_embeddings": True,
    },
    tiny={
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "in_channels": 4,
        "out_channels": 4,
        "time_embed_dim": 16,
        "text_embed_dim": 16,
        "num_layers": 3,
        "sample_width": 8,
        "sample_height": 8,
        "sample_frames": 9,
        "max_text_seq_length": 8,
    },
    billions=5.570,
    scheduler=(
        "CogVideoXDDIMScheduler",
        {
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "beta_schedule": "scaled_linear",
            "num_train_timesteps": 1000,
            "prediction_type": "v_prediction",
            "rescale_betas_zero_snr": True,
            "snr_shift_scale": 1.0,
            "timestep_spacing": "trailing",
            "clip_sample": False,
            "set_alpha_to_one": True,
        },
    ),
    steps=50,
    latents=(1, 13, 16, 60, 90),
    small=(1, 3, 4, 8, 8),
    guided=True,
    minutes=1.9,
    spatial=({"token": 0.4},),
)
ARCHITECTURES = {a.name: a for a in (SD3, SVD, LATTE, FLUX, COGVIDEOX)}


# --- one run ---------------------------------------------------------------------------------------------------------------


class BrokenOff(Exception):
    """A run that was to stop here."""


class Denoising:
    """What the architecture's pipeline does between its text encoders and its decoder."""

    def __init__(self, which: Architecture, device: torch.device, dtype: torch.dtype, tiny: bool):
        self.which, self.device, self.dtype = which, device, dtype
        self.config = {**which.config, **(which.tiny if tiny else {})}
        self.transformer = built(which, self.config, device, dtype)
        name, config = which.scheduler
        self.scheduler = getattr(diffusers, name)(**config)
        self.shift = {"mu": config["max_shift"]} if config.get("use_dynamic_shifting") else {}
        self.shape = which.small if tiny else which.latents
        self.conditions = {k: v.to(dtype) if v.ndim > 2 else v for k, v in self._conditions(tiny).items()}
        self.marks: list[Any] = []
        self.stop_after: int | None = None
        self.finite = True

    def drawn(self, *shape: int) -> torch.Tensor:
        made = torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))
        return made.to(self.device, self.dtype)

    def _conditions(self, tiny: bool) -> dict[str, Any]:
        """What every evaluation is given besides latents and time, both halves of guidance."""
        halves, c, name = (2 if self.which.guided else 1), self.config, self.which.name
        if name == "sd3-medium":
            words = 5 if tiny else 333  # 77 of CLIP and 256 of T5
            pooled = self.drawn(halves, c["pooled_projection_dim"])
            return {"encoder_hidden_states": self.drawn(halves, words, c["joint_attention_dim"]), "pooled_projections": pooled}
        if name == "svd-xt":
            known = torch.tensor([[6.0, 127.0, 0.02]] * halves, device=self.device, dtype=self.dtype)
            return {"encoder_hidden_states": self.drawn(halves, 1, c["cross_attention_dim"]), "added_time_ids": known}
        if name == "latte-1":
            return {"encoder_hidden_states": self.drawn(halves, 5 if tiny else 120, c["caption_channels"])}
        if name == "flux.1-dev":
            words, side = (5, 8) if tiny else (512, 64)
            grid = torch.cartesian_prod(torch.zeros(1), torch.arange(1.0 * side), torch.arange(1.0 * side))
            return {
                "encoder_hidden_states": self.drawn(1, words, c["joint_attention_dim"]),
                "pooled_projections": self.drawn(1, c["pooled_projection_dim"]),
                "guidance": torch.full((1,), 3.5, device=self.device),
                "txt_ids": torch.zeros(words, 3, device=self.device, dtype=self.dtype),
                "img_ids": grid.to(self.device, self.dtype),
            }
        return {"encoder_hidden_states": self.drawn(halves, c["max_text_seq_length"], c["text_embed_dim"])}

    def evaluate(self, latents: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """The guided output of the denoiser."""
        name, model, given = self.which.name, self.transformer, dict(self.conditions)
        both = torch.cat([latents] * 2) if self.which.guided else latents
        both = self.scheduler.scale_model_input(both, t) if hasattr(self.scheduler, "scale_model_input") else both
        time_of_each = t.expand(both.shape[0]).to(self.device)
        if name == "svd-xt":
            out = model(torch.cat([both, self.picture.expand_as(both)], 2), t.to(self.device), return_dict=False, **given)[0]
        elif name == "flux.1-dev":
            return model(hidden_states=both, timestep=time_of_each / 1000, return_dict=False, **given)[0]
        elif name == "cogvideox-5b":
            out = model(hidden_states=both, timestep=time_of_each, image_rotary_emb=self.turns, return_dict=False, **given)[0]
        else:
            out = model(hidden_states=both, timestep=time_of_each, return_dict=False, **given)[0]
        without, wanted = out.chunk(2)
        guided = without + 3.0 * (wanted - without)
        return guided.chunk(2, dim=1)[0] if name == "latte-1" else guided  # its other half of the channels is a variance

    @torch.no_grad()
    def __call__(self, num_inference_steps: int) -> None:
        """One run; ``marks`` are set before every step and after the last."""
        self._before()
        self.scheduler.set_timesteps(num_inference_steps, device=self.device, **self.shift)
        latents = self.drawn(*self.shape) * getattr(self.scheduler, "init_noise_sigma", 1.0)
        self.marks = [mark(self.device)]
        for i, t in enumerate(self.scheduler.timesteps):
            if i == self.stop_after:
                raise BrokenOff
            latents = self.scheduler.step(self.evaluate(latents, t), t, latents).prev_sample.to(self.dtype)
            self.marks.append(mark(self.device))
        self.finite = bool(latents.isfinite().all())

    def _before(self) -> None:
        """What a pipeline makes once a run."""
        if self.which.name == "svd-xt":
            self.picture = self.drawn(*self.shape)
        if self.which.name == "cogvideox-5b":
            _, frames, _, height, width = self.shape
            tokens, wide = frames * height * width // 4, self.config["attention_head_dim"]
            angles = torch.randn(tokens, wide, generator=torch.Generator().manual_seed(0)).to(self.device)
            self.turns = angles.cos(), angles.sin()

    def milliseconds(self) -> list[float]:
        """Of each step of the last run."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            return [a.elapsed_time(b) for a, b in zip(self.marks, self.marks[1:], strict=False)]
        return [1e3 * (b - a) for a, b in zip(self.marks, self.marks[1:], strict=False)]


def mark(device: torch.device) -> Any:
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def built(which: Architecture, config: dict[str, Any], device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Made on the device in its dtype at once: drawing twelve billion numbers on the host takes longer than the benchmark."""
    usual = torch.get_default_dtype()
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = getattr(diffusers, which.denoiser)(**config)
    finally:
        torch.set_default_dtype(usual)
    return model.to(device=device, dtype=dtype).eval().requires_grad_(False)


# --- the caches ------------------------------------------------------------------------------------------------------------


def layered(model: nn.Module, share: float, steps: int) -> Plan:
    """A table for every layer. Together they reuse ``share`` of all (layer, step), evenly spread, nothing at every fifth step."""
    found = discover(model)
    blocks = len(found.sites("block"))
    layers = list(range(blocks or len(found.sites("layer"))))
    cells = [(t, layer) for t in range(steps) if t % INTERVAL for layer in layers]
    rate = min(1.0, share * steps * len(layers) / len(cells))
    reused = {cell for i, cell in enumerate(cells) if int((i + 1) * rate) > int(i * rate)}
    tables = {layer: "".join("." if (t, layer) in reused else "#" for t in range(steps)) for layer in layers}
    how = Residual(Hold()) if blocks else Hold()
    policies = tuple(Policy(Table(table), Layers(i, i + 1), how) for i, table in tables.items())
    return Plan("layered", policies, {"share": len(reused) / (steps * len(layers)), "interval": INTERVAL})


@dataclass
class Variant:
    """One way to run, under a label; ``plan`` is made when the number of steps is known."""

    label: str
    plan: Callable[[Denoising, int], Plan | None]
    twins: bool = True
    """Whether Triton's kernels are taken where they can be."""
    runs: list[list[float]] = field(default_factory=list)
    found: dict[str, Any] = field(default_factory=dict)
    made: Plan | None = None


def named(name: str, **options: Any) -> Callable[[Denoising, int], Plan]:
    return lambda pipe, steps: registry.get(name).plan(**options)


def rows(which: Architecture, **options: float) -> Plan:
    """``omnicache-md`` at these ratios alone, where the paper puts it in this model."""
    none = {"token": 0.0, "frame": 0.0, "block": 0.0}
    return registry.get("omnicache-md").plan_for([which.denoiser], **{**none, **options})


def teacache(pipe: Denoising, steps: int) -> Plan:
    return omnicache.calibrate(pipe, [{}], "teacache", progress=False, reuse=0.5, num_inference_steps=steps)


def variants(which: Architecture) -> list[Variant]:
    """Uncached first. What this OmniCache does not have is left out, and said in ``missing``."""
    out = [Variant("uncached", lambda pipe, steps: None)]
    known = registry.METHODS.get("omnicache-md")
    if known is not None:
        for options in which.spatial:
            said = " ".join(f"{k}={v}" for k, v in options.items())
            out.append(Variant(f"omnicache-md {said}", lambda pipe, steps, options=options: rows(which, **options)))
        if which is SD3:
            out.append(Variant("omnicache-md token=0.6, plain torch", lambda pipe, steps: rows(which, token=0.6), twins=False))
    for share in which.layered:
        out.append(Variant(f"layered {share}", lambda pipe, steps, share=share: layered(pipe.transformer, share, steps)))
    if known is not None and which.spatial:

        def joined(pipe: Denoising, steps: int) -> Plan:
            below, options = layered(pipe.transformer, which.layered[0], steps), which.spatial[min(1, len(which.spatial) - 1)]
            return Plan("layered+md", (*below.policies, *rows(which, **options).policies))

        out.append(Variant(f"layered {which.layered[0]} and omnicache-md", joined))
    out.append(Variant("teacache half", teacache))
    out.append(Variant("taylorseer", named("taylorseer")))
    out.append(Variant("fora", named("fora")))
    return out


@contextmanager
def kernels(twins: bool) -> Iterator[None]:
    held = dispatch.without
    dispatch.without = held if twins else set(dispatch.HOMES)
    try:
        yield
    finally:
        dispatch.without = held


def run(pipe: Denoising, variant: Variant, steps: int, stop_after: int | None = None) -> None:
    """One run of a variant: its step times are added to it, unless it is broken off."""
    pipe.stop_after = stop_after
    cached = omnicache.cache(pipe, variant.made) if variant.made is not None else nullcontext()
    if pipe.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(pipe.device)
    with kernels(variant.twins), cached as caching:
        try:
            pipe(steps)
        except BrokenOff:
            return
        variant.runs.append(pipe.milliseconds())
        variant.found["finite"] = pipe.finite
        if pipe.device.type == "cuda":
            variant.found["peak_gb"] = torch.cuda.max_memory_allocated(pipe.device) / 1e9
        if caching is not None:
            variant.found |= {"computed": caching.computed, "cache_gb": caching.cache_bytes / 1e9}
            variant.found["notes"] = list(caching.trace.notes)[:6]


def measured(which: Architecture, device: torch.device, tiny: bool, budget: float, rounds: int, most: int) -> dict[str, Any]:
    """All variants of one architecture within ``budget`` seconds; one that fails says so and stands in nobody's way."""
    began = time.perf_counter()
    deadline = began + budget
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    pipe = Denoising(which, device, dtype, tiny)
    parameters = sum(p.numel() for p in pipe.transformer.parameters())
    result: dict[str, Any] = {"parameters": parameters, "full_steps": which.steps, "latents": list(pipe.shape)}
    if registry.METHODS.get("omnicache-md") is None:
        result["missing"] = "omnicache-md: this OmniCache has no method of that name"
    ways = variants(which)
    run(pipe, ways[0], which.steps, stop_after=2)
    pipe.stop_after = 4
    try:
        pipe(which.steps)
    except BrokenOff:
        step = sum(pipe.milliseconds()[1:]) / 3e3
    left = deadline - time.perf_counter()
    each = 1 + 0.65 * (len(ways) - 1) + 1  # a round in uncached runs, and teacache's calibration
    warming = 0.7 * WARM * (len(ways) - 1) * step
    steps = min(which.steps, most)
    if each * steps * step + warming > left:
        steps = min(steps, max(2 * INTERVAL, int((left - warming) / (each * step))))
    result |= {"built_and_tried_s": time.perf_counter() - began, "steps": steps}
    for way in ways:
        pipe.stop_after = None
        with failures(way):
            way.made = way.plan(pipe, steps)
            run(pipe, way, steps, stop_after=min(WARM, steps - 1))
    for _ in range(rounds):
        round_began = time.perf_counter()
        for way in ways:
            over = time.perf_counter() - deadline
            late = over > (0 if way.runs else 0.15 * budget)  # a first round may be finished
            if "error" not in way.found and not late:
                with failures(way):
                    run(pipe, way, steps)
        if time.perf_counter() + (time.perf_counter() - round_began) > deadline:
            break
    result["variants"] = [row(way, ways[0], which.steps / steps) for way in ways]
    return result


@contextmanager
def failures(way: Variant) -> Iterator[None]:
    try:
        yield
    except Exception as bad:
        way.found["error"] = f"{type(bad).__name__}: {bad}"[:500]
        traceback.print_exc(limit=4)


def row(way: Variant, uncached: Variant, scale: float) -> dict[str, Any]:
    if not way.runs:
        return {"variant": way.label, **way.found}
    totals = [sum(r) for r in way.runs]
    ratios = [sum(a) / b for a, b in zip(uncached.runs, totals, strict=False)]
    return {
        "variant": way.label,
        "speedup": statistics.median(ratios),
        "speedups": ratios,
        "run_ms": statistics.median(totals),
        "run_ms_at_full_steps": statistics.median(totals) * scale,
        "mean_step_ms": statistics.median(totals) / len(way.runs[0]),
        "median_step_ms": statistics.median(ms for r in way.runs for ms in r),
        "slowest_step_ms": max(statistics.median(at) for at in zip(*way.runs, strict=True)),
        "fastest_step_ms": min(statistics.median(at) for at in zip(*way.runs, strict=True)),
        "rounds": len(way.runs),
        **({"options": dict(way.made.options)} if way.made is not None else {}),
        **way.found,
    }


def shown(name: str, result: dict[str, Any]) -> None:
    print(f"\n{name}: {result['parameters'] / 1e9:.2f} G parameters, {result['steps']} of {result['full_steps']} steps")
    for r in result["variants"]:
        if "speedup" not in r:
            print(f"  {r['variant']:38s} {r.get('error', 'not run: no time left')}")
            continue
        peak = f", peak {r['peak_gb']:.1f} GB" if "peak_gb" in r else ""
        print(f"  {r['variant']:38s} {r['mean_step_ms']:9.2f} ms a step, {r['speedup']:.2f}x{peak}  {r.get('computed', '')}")


@torch.no_grad()
def check(which: Architecture) -> None:
    """Builds the architecture without memory and evaluates it on tensors without numbers.

    Raises:
        SystemExit: the parameters are not as many as published, or the output has another shape than the latents.
    """
    pipe = Denoising(which, torch.device("meta"), torch.bfloat16, tiny=False)
    billions = sum(p.numel() for p in pipe.transformer.parameters()) / 1e9
    pipe._before()
    pipe.scheduler.set_timesteps(which.steps, **pipe.shift)
    latents = pipe.drawn(*pipe.shape)
    out = pipe.evaluate(latents, pipe.scheduler.timesteps[0])
    print(f"{which.name}: {billions:.3f} G parameters, published {which.billions}; {list(latents.shape)} to {list(out.shape)}")
    if abs(billions / which.billions - 1) > 0.001 or out.shape != latents.shape:
        raise SystemExit(f"{which.name} is not what was published.")


def main() -> None:
    ask = argparse.ArgumentParser()
    ask.add_argument("--only", action="append", choices=list(ARCHITECTURES), help="this architecture; may be repeated")
    ask.add_argument("--minutes", type=float, default=7.5, help="for everything")
    ask.add_argument("--rounds", type=int, default=3, help="at most, if the time suffices")
    ask.add_argument("--steps", type=int, default=1000, help="at most so many in a run")
    ask.add_argument("--check", action="store_true", help="only whether the architectures are as published")
    ask.add_argument("--tiny", action="store_true", help="every architecture scaled down")
    ask.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    ask.add_argument("--out", type=Path, default=Path("benchmarks/results/full_size.json"))
    a = ask.parse_args()
    diffusers.utils.logging.set_verbosity_error()
    began = time.perf_counter()
    chosen = [ARCHITECTURES[name] for name in a.only or ARCHITECTURES]
    if a.check:
        for which in chosen:
            check(which)
        return
    device = torch.device(a.device)
    if device.type == "cpu" and not a.tiny:
        raise SystemExit("There is no CUDA device here, and at full size a CPU takes days. `--tiny --device cpu` tries the script.")
    result: dict[str, Any] = {**environment(device), "when": time.strftime("%Y-%m-%d"), "tiny": a.tiny}
    result |= {"diffusers": diffusers.__version__, "architectures": {}}
    a.out.parent.mkdir(parents=True, exist_ok=True)
    for i, which in enumerate(chosen):
        left = 60 * a.minutes - (time.perf_counter() - began)
        mine = left * which.minutes / sum(w.minutes for w in chosen[i:])
        try:
            found = measured(which, device, a.tiny, mine, a.rounds, a.steps)
            shown(which.name, found)
        except Exception as bad:
            traceback.print_exc()
            found = {"error": f"{type(bad).__name__}: {bad}"[:500]}
        result["architectures"][which.name] = found
        result["seconds"] = time.perf_counter() - began
        a.out.write_text(json.dumps(rounded(result), indent=1) + "\n")  # after each: what is cut short still leaves these
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    print(f"\n{result['device']}, {result['seconds']:.0f} s in all; written to {a.out}")


if __name__ == "__main__":
    main()
