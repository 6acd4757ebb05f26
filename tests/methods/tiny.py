"""What the tests share: real architectures at toy size, toys whose values can be worked out by hand, and ways to look on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DiTTransformer2DModel,
    LatteTransformer3DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
    UNet2DModel,
)
from torch import Tensor, nn

from omnicache.policy import Decision, Entry, History, Predictor, Signal, Tensors, Trigger
from omnicache.runtime.decisions import TriggerState
from omnicache.runtime.step import Step

# --- real architectures ----------------------------------------------------------------------------------------------------


def _ready(model: nn.Module) -> Any:
    return model.eval().requires_grad_(False)


def dit(layers: int = 3, seed: int = 0, **more: Any) -> DiTTransformer2DModel:
    """16 tokens (a 4 x 4 grid) of width 16."""
    torch.manual_seed(seed)
    size = {
        "num_attention_heads": 2,
        "attention_head_dim": 8,
        "in_channels": 4,
        "sample_size": 8,
        "patch_size": 2,
        "num_embeds_ada_norm": 10,
    }
    return _ready(DiTTransformer2DModel(num_layers=layers, norm_num_groups=4, **{**size, **more}))


def sd3(layers: int = 3, seed: int = 0) -> SD3Transformer2DModel:
    """Two streams, 16 picture and 5 text tokens; the last block returns no text stream."""
    torch.manual_seed(seed)
    heads = {"attention_head_dim": 8, "num_attention_heads": 2, "joint_attention_dim": 8, "caption_projection_dim": 16}
    shape = {
        "sample_size": 8,
        "patch_size": 2,
        "in_channels": 4,
        "out_channels": 4,
        "pos_embed_max_size": 8,
        "pooled_projection_dim": 8,
    }
    return _ready(SD3Transformer2DModel(num_layers=layers, **heads, **shape))


def latte(layers: int = 2, seed: int = 0) -> LatteTransformer3DModel:
    """Spatial and temporal blocks in turn, with reshapes between them."""
    torch.manual_seed(seed)
    shape = {
        "num_attention_heads": 2,
        "attention_head_dim": 8,
        "in_channels": 4,
        "out_channels": 4,
        "sample_size": 8,
        "patch_size": 2,
    }
    text = {"cross_attention_dim": 16, "caption_channels": 8, "video_length": 3, "norm_type": "ada_norm_single"}
    more = {
        "num_embeds_ada_norm": 1000,
        "norm_elementwise_affine": False,
        "activation_fn": "gelu-approximate",
        "attention_bias": True,
    }
    return _ready(LatteTransformer3DModel(num_layers=layers, **shape, **text, **more))


def unet(attention: bool = True, seed: int = 0) -> UNet2DModel:
    """Two levels with two layers each: skip tensors 0 (``conv_in``) to 5."""
    torch.manual_seed(seed)
    kinds = {
        "down_block_types": ("AttnDownBlock2D" if attention else "DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "AttnUpBlock2D" if attention else "UpBlock2D"),
    }
    size = {"sample_size": 8, "in_channels": 4, "out_channels": 4, "block_out_channels": (8, 16), "norm_num_groups": 4}
    return _ready(UNet2DModel(layers_per_block=2, attention_head_dim=4, **size, **kinds))


def text_unet(levels: int = 3, seed: int = 0) -> UNet2DConditionModel:
    """As Stable Diffusion's: cross-attention everywhere but at the bottom. Skip tensors 0 to ``3 * levels - 1``."""
    torch.manual_seed(seed)
    kinds = {
        "down_block_types": ("CrossAttnDownBlock2D",) * (levels - 1) + ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * (levels - 1),
    }
    size = {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (8, 16, 16, 16)[:levels],
        "norm_num_groups": 4,
    }
    return _ready(UNet2DConditionModel(layers_per_block=2, attention_head_dim=4, cross_attention_dim=8, **size, **kinds))


# --- toys ------------------------------------------------------------------------------------------------------------------

Curve = Callable[[float], float]


def _time(timestep: Any) -> float:
    return float(timestep.max()) if isinstance(timestep, Tensor) else float(timestep)


class CurveAttention(nn.Module):
    """Answers ``direction * curve(timestep)``, whatever its input."""

    def __init__(self, direction: Tensor, curve: Curve):
        super().__init__()
        self.direction, self.curve = nn.Parameter(direction, requires_grad=False), curve

    def forward(self, hidden_states: Tensor, timestep: Any) -> Tensor:
        return (self.direction * self.curve(_time(timestep))).expand_as(hidden_states).clone()


class CurveMLP(CurveAttention):
    pass


class CurveBlock(nn.Module):
    """``h + gate(t) * attn(h, t)``, then the same with the MLP; keeps what it added last, for the tests."""

    def __init__(self, a: Tensor, m: Tensor, curve: Curve, gate: Curve):
        super().__init__()
        self.attn, self.mlp, self.gate = CurveAttention(a, curve), CurveMLP(m, curve), gate
        self.added: list[Tensor] = []

    def forward(self, hidden_states: Tensor, timestep: Any) -> Tensor:
        g = self.gate(_time(timestep))
        self.added = []
        for part in (self.attn, self.mlp):
            self.added.append(g * part(hidden_states, timestep))
            hidden_states = hidden_states + self.added[-1]
        return hidden_states


class Curves(nn.Module):
    """A denoiser whose module outputs follow a curve in the timestep and whose read-out is linear."""

    def __init__(
        self, curve: Curve, gate: Curve = lambda t: 1.0, layers: int = 2, shape: tuple[int, ...] = (4, 8, 8), seed: int = 0
    ):
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        parts = [torch.randn(1, *shape, generator=draw, dtype=torch.float64) for _ in range(2 * layers)]
        self.blocks = nn.ModuleList(CurveBlock(a, m, curve, gate) for a, m in zip(parts[::2], parts[1::2], strict=True))

    def forward(self, hidden_states: Tensor, timestep: Any) -> Tensor:
        for block in self.blocks:
            hidden_states = block(hidden_states, timestep)
        return 0.3 * hidden_states


class Doubling(nn.Module):
    """The toy bench of the reference: two blocks that double their input, so 10 gives 40 and 11 gives 44."""

    class Double(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.tensor(2.0), requires_grad=False)

        def forward(self, hidden_states: Tensor) -> Tensor:
            return hidden_states * self.factor

    def __init__(self, layers: int = 2) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(self.Double() for _ in range(layers))

    def forward(self, hidden_states: Tensor, timestep: Any) -> Tensor:
        for block in self.blocks:
            hidden_states = block(hidden_states)
        return hidden_states


def number(value: float) -> Tensor:
    """A number as the smallest stream of tokens."""
    return torch.full((1, 1, 1), float(value))


def conditions_for(model: nn.Module, label: Tensor) -> dict[str, Tensor]:
    """What each architecture is told besides latent and timestep, made from labels."""
    text = torch.stack([torch.randn(5, 8, generator=torch.Generator().manual_seed(int(n))) for n in label])
    if isinstance(model, DiTTransformer2DModel):
        return {"class_labels": label}
    if isinstance(model, SD3Transformer2DModel):
        return {"encoder_hidden_states": text, "pooled_projections": text.mean(1)}
    if isinstance(model, LatteTransformer3DModel | UNet2DConditionModel):
        return {"encoder_hidden_states": text}
    return {}


# --- a pipeline ------------------------------------------------------------------------------------------------------------


class Pipe:
    """A denoising loop around any model: what diffusers' pipelines do, without their text encoders and autoencoders.

    ``guidance`` is "none", "batched" (one call with both halves, unconditional first) or "calls" (two calls a step).
    ``start`` and ``stop`` cut the timesteps as image-to-image and ``denoising_end`` do.
    """

    def __init__(self, model: nn.Module, scheduler: Any = None, conditions: Callable[[Tensor], Mapping[str, Any]] | None = None):
        name = "unet" if hasattr(model, "down_blocks") else "transformer"
        self.name, self.scheduler = name, scheduler if scheduler is not None else ddim()
        setattr(self, name, model)
        self.conditions = conditions or (lambda label: conditions_for(model, label))

    @property
    def model(self) -> Any:
        return getattr(self, self.name)

    @torch.no_grad()
    def __call__(
        self,
        label: Any = 1,
        num_inference_steps: int = 10,
        generator: torch.Generator | None = None,
        guidance: str = "none",
        start: int = 0,
        stop: int | None = None,
        shape: tuple[int, ...] = (4, 8, 8),
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        labels = torch.as_tensor(label).reshape(-1)
        generator = generator or torch.Generator().manual_seed(int(labels.sum()))
        self.scheduler.set_timesteps(num_inference_steps)
        times = self.scheduler.timesteps[start:stop]
        if hasattr(self.scheduler, "set_begin_index"):
            self.scheduler.set_begin_index(start)
        x = torch.randn(len(labels), *shape, generator=generator, dtype=dtype) * getattr(self.scheduler, "init_noise_sigma", 1.0)
        none, cond = self.conditions(torch.full_like(labels, 10)), self.conditions(labels)
        both = {k: torch.cat([none[k], cond[k]]) for k in none if isinstance(none[k], Tensor)}
        for t in times:
            seen = self.scheduler.scale_model_input(x, t) if hasattr(self.scheduler, "scale_model_input") else x
            if guidance == "batched":
                a, b = self.evaluate(torch.cat([seen, seen]), t, both).chunk(2)
            elif guidance == "calls":
                a, b = self.evaluate(seen, t, none), self.evaluate(seen, t, cond)
            else:
                a = b = self.evaluate(seen, t, cond)
            x = self.scheduler.step(a + 2.0 * (b - a), t, x).prev_sample
        return x

    def evaluate(self, x: Tensor, t: Tensor, conditions: Mapping[str, Any]) -> Tensor:
        out = self.model(x, timestep=t.expand(x.shape[0]), **conditions)
        return out if isinstance(out, Tensor) else out[0] if isinstance(out, tuple) else out.sample


def ddim(**more: Any) -> DDIMScheduler:
    return DDIMScheduler(clip_sample=False, **more)


# --- looking on ------------------------------------------------------------------------------------------------------------


@contextmanager
def counted(model: nn.Module) -> Iterator[Counter[str]]:
    """Counts the calls that really run, of every module below ``model``, by name."""
    calls: Counter[str] = Counter()
    hooks = [m.register_forward_hook(lambda *_, name=name: calls.update([name])) for name, m in model.named_modules() if name]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def strip(trigger: Trigger, total: int, error: float | None = None, signals: Mapping[Signal, list[Any]] | None = None) -> str:
    """What a trigger decides in a run of ``total`` steps, as the session asks it: one character a step.

    ``error`` is what every check finds; ``signals`` give the measured change of each step (None for no comparison).
    """
    state, marks = TriggerState(trigger), ""
    for i in range(total):
        now = {s: None if v[i] is None else torch.as_tensor(v[i]).reshape(-1) for s, v in (signals or {}).items()}
        decision = state.decide(Step(i, total), now)
        if decision is Decision.CHECK:
            assert error is not None, "a check was not expected"
            good, state.state = trigger.observe(state.state, state.moment, error)
            if not good and trigger.redo:
                state.settle(Decision.COMPUTE)
                decision = Decision.COMPUTE
        marks += decision.value
    return marks


def full_steps(marks: str) -> list[int]:
    return [i for i, mark in enumerate(marks) if mark == "#"]


@dataclass
class Tape:
    """Computed values of a run by step, in the order in which they were learned."""

    values: dict[int, list[Tensors]] = field(default_factory=dict)
    read: Counter[int] = field(default_factory=Counter)


@dataclass(frozen=True, eq=False)
class Truth(Predictor):
    """Estimates nothing: in a first run it records the computed values of every step, in a second one it plays them back.

    A cached run with true values in place of estimates must be the uncached run to the bit; if it is not, something outside
    the value is lost or done twice. ``change`` distorts what is played back, to see that it matters.
    """

    tape: Tape = field(default_factory=Tape)
    playing: bool = False
    change: float = 0.0

    def played(self, change: float = 0.0) -> Truth:
        return Truth(Tape(self.tape.values), True, change)

    def learn(self, history: History, step: Step, x: Tensors, y: Tensors) -> History:
        if not self.playing:
            self.tape.values.setdefault(step.index, []).append(tuple(t.clone() for t in y))
        return (Entry(step, y),)

    def estimate(self, history: History, step: Step, x: Tensors) -> Tensors:
        place = self.tape.read[step.index]
        self.tape.read[step.index] += 1
        return tuple(t + self.change * t.flip(-1) if self.change else t.clone() for t in self.tape.values[step.index][place])
