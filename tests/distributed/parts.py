"""Models whose sequence is split over processes, and pipelines around them; the same on one process, to compare."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from diffusers import FluxTransformer2DModel, WanTransformer3DModel
from torch import Tensor, nn

from ..methods.tiny import Pipe

STEPS = 12


# --- a split written by hand -------------------------------------------------------------------------------------------------


class Attention(nn.Module):
    """Attends to the keys and values of all ranks of ``group``; to its own without one."""

    def __init__(self, width: int):
        super().__init__()
        self.to_q, self.to_k, self.to_v, self.to_out = (nn.Linear(width, width) for _ in range(4))
        self.group: Any = None

    def forward(self, hidden_states: Tensor) -> Tensor:
        seen = torch.cat([self.to_k(hidden_states), self.to_v(hidden_states)], -1)
        if self.group is not None:
            seen = gathered(seen, self.group)
        k, v = seen.chunk(2, -1)
        weights = torch.softmax(self.to_q(hidden_states) @ k.transpose(1, 2) / math.sqrt(k.shape[-1]), -1)
        return self.to_out(weights @ v)


class Block(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(width, elementwise_affine=False) for _ in range(2))
        self.attn = Attention(width)
        self.ff = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, hidden_states: Tensor, temb: Tensor) -> Tensor:
        hidden_states = hidden_states + self.attn(self.norm1(hidden_states) * (1 + temb))
        return hidden_states + self.ff(self.norm2(hidden_states) * (1 + temb))


class Tokens(nn.Module):
    """A denoiser of ``(batch, tokens, 4)``. What a token is told of the time depends on its place: the last ones are told more
    that is new at every step, so that who sees these only takes the change for larger than who sees the first ones."""

    def __init__(self, width: int = 8, layers: int = 3, seed: int = 0):
        super().__init__()
        torch.manual_seed(seed)
        self.width = width
        self.proj_in, self.proj_out = nn.Linear(4, width), nn.Linear(width, 4)
        self.blocks = nn.ModuleList(Block(width) for _ in range(layers))

    def forward(self, hidden_states: Tensor, timestep: Tensor, ids: Tensor) -> Tensor:
        time = timestep.view(-1, 1, 1) / 1000
        temb = torch.sin(time * torch.arange(1, self.width + 1))
        hidden_states = self.proj_in(hidden_states) + 2 * torch.sin(6 * ids * time + torch.arange(self.width))
        for block in self.blocks:
            hidden_states = block(hidden_states, temb)
        return self.proj_out(hidden_states)


def gathered(part: Tensor, group: Any) -> Tensor:
    parts = [torch.empty_like(part) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, part.contiguous(), group=group)
    return torch.cat(parts, 1)


class Row(Pipe):
    """A loop around ``Tokens``. With ``part = (rank, of)`` the denoiser is given its part of the tokens only.

    Attributes:
        group: among whom attention and output are gathered; without one, a part is all there is.
        lost: steps at which this rank's part has NaN in it when it comes in. It goes out again as zeros, so that one step is
            spoiled and not the run.
        tokens: how many there are, at every step.
    """

    def __init__(self, part: tuple[int, int] | None = None, group: Any = None):
        model = Tokens().eval().requires_grad_(False)
        for block in model.blocks:
            block.attn.group = group
        super().__init__(model, conditions=lambda label: {})
        self.part, self.group = part, group
        self.lost: tuple[int, ...] = ()
        self.tokens = lambda step: 16
        self.at = -1

    def __call__(self, label: Any = 1, num_inference_steps: int = STEPS, **more: Any) -> Tensor:
        self.at = -1
        return super().__call__(label, num_inference_steps, shape=(16, 4), **more)

    def evaluate(self, x: Tensor, t: Tensor, conditions: Mapping[str, Any]) -> Tensor:
        self.at += 1
        count = self.tokens(self.at)
        ids = torch.linspace(0, 1, 16)[None, :, None].expand(len(x), -1, 1)
        given = [v[:, :count] for v in (x, ids)]
        if self.part is not None:
            given = [v.tensor_split(self.part[1], 1)[self.part[0]] for v in given]
        if self.at in self.lost:
            given[0] = given[0].clone()
            given[0][:, 0, 0] = torch.nan
        out = self.model(given[0], timestep=t.expand(len(x)), ids=given[1]).nan_to_num(0.0)
        if self.group is not None:
            out = gathered(out, self.group)
        return nn.functional.pad(out, (0, 0, 0, 16 - out.shape[1]))


# --- diffusers' own ----------------------------------------------------------------------------------------------------------


class Flux(Pipe):
    """A loop around a tiny Flux, with two rows of blocks. The last tokens start out louder, so that they change less."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        heads = {"attention_head_dim": 8, "num_attention_heads": 2, "joint_attention_dim": 8, "pooled_projection_dim": 8}
        size = {"patch_size": 1, "in_channels": 4, "num_layers": 2, "num_single_layers": 2, "axes_dims_rope": (2, 2, 4)}
        super().__init__(FluxTransformer2DModel(**size, **heads).eval().requires_grad_(False), conditions=self.told)

    def told(self, label: Tensor) -> dict[str, Any]:
        text = torch.stack([torch.randn(4, 8, generator=torch.Generator().manual_seed(int(n))) for n in label])
        places = torch.cat([torch.zeros(16, 1), torch.cartesian_prod(torch.arange(4.0), torch.arange(4.0))], 1)
        return {
            "encoder_hidden_states": text,
            "pooled_projections": text.mean(1),
            "img_ids": places,
            "txt_ids": torch.zeros(4, 3),
            "return_dict": False,  # as pipelines ask; diffusers splits no other outputs
        }

    def __call__(self, label: Any = 1, num_inference_steps: int = STEPS, **more: Any) -> Tensor:
        return super().__call__(label, num_inference_steps, shape=(16, 4), **more)

    def evaluate(self, x: Tensor, t: Tensor, conditions: Mapping[str, Any]) -> Tensor:
        loud = torch.linspace(0.2, 5, 16)[:, None]
        return super().evaluate(x * loud, t / 1000, conditions) / loud


class Wan(Pipe):
    """A loop around a tiny Wan, which takes its part of the tokens within its first block."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        size = {"patch_size": (1, 2, 2), "in_channels": 4, "out_channels": 4, "num_layers": 3, "rope_max_seq_len": 32}
        heads = {"num_attention_heads": 2, "attention_head_dim": 12, "text_dim": 8, "freq_dim": 8, "ffn_dim": 16}
        told = {"encoder_hidden_states": torch.randn(1, 4, 8), "return_dict": False}
        super().__init__(WanTransformer3DModel(**size, **heads).eval().requires_grad_(False), conditions=lambda label: told)

    def __call__(self, label: Any = 1, num_inference_steps: int = STEPS, **more: Any) -> Tensor:
        return super().__call__(label, num_inference_steps, shape=(4, 1, 8, 8), **more)
