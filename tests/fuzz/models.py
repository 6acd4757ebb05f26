"""Denoisers to be drawn at random: toys with every wiring that is hard to cache, and tiny ones of diffusers' own classes."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from tests import tiny
from torch import Tensor, nn

WIDTH, CHANNELS, TEXT = 8, 4, 3
"""Of a toy: features of a token, of its latents, and the number of its text tokens."""

STREAMS = ("one", "two", "both")
RETURNS = ("tensor", "tuple", "list", "mapping", "record", "object")
WRITES = ("nothing", "its input", "its input at once", "a part's output", "between the blocks", "after the blocks")
BETWEEN = ("nothing", "an addition", "a late addition", "a reshape", "a scale")
READS = ("nothing", "the first block", "all blocks")
REAL = ("dit", "flux", "sd3", "latte", "unet", "unet2d")

SHARED: dict[str, Tensor] = {}
"""What the blocks of a toy read besides their arguments; its model writes it at every call."""


@dataclass(frozen=True)
class Toy:
    """A wiring.

    Attributes:
        layers: blocks of a row; a model with "both" streams has two rows of them.
        streams: "one" (text is part of the modulation), "two" (text is a stream of its own), "both" (first two, then one).
        returns: what a block wraps its output in; a "record" is a dataclass, an "object" is nothing one can see into.
        writes: who writes in place.
        between: what the model does between two blocks; a "late addition" begins in the middle of a run.
        reads: which outputs of blocks the model reads once more at its end.
        twice: whether the row runs twice in a pass.
        parts: whether a block has an attention and an MLP, or is one linear map.
        keywords: whether blocks are called by keywords.
        outside: whether blocks read a global, too.
    """

    layers: int = 3
    streams: str = "one"
    returns: str = "tensor"
    writes: str = "nothing"
    between: str = "nothing"
    reads: str = "nothing"
    twice: bool = False
    parts: bool = True
    keywords: bool = False
    outside: bool = False

    @property
    def plain(self) -> bool:
        """Whether the row is nothing but the composition of its blocks, whoever writes to what."""
        nothing = self.between == self.reads == "nothing"
        return nothing and self.streams == "one" and self.returns != "object" and not self.twice


@dataclass(frozen=True)
class Real:
    """A model of diffusers by its key in ``tests/tiny.py``, or "flux"."""

    kind: str = "dit"
    plain = False


Kind = Toy | Real


@dataclass
class Record:
    """An output that is no tuple and no mapping."""

    states: tuple[Tensor, ...]


class Object:
    """An output that nothing can see into."""

    def __init__(self, states: tuple[Tensor, ...]):
        self.states = states


def wrapped(streams: tuple[Tensor, ...], returns: str) -> Any:
    if returns == "tensor":
        return streams[0] if len(streams) == 1 else streams
    if returns == "mapping":
        return {str(i): s for i, s in enumerate(streams)}
    return {"tuple": tuple, "list": list, "record": Record, "object": Object}[returns](streams)


def unwrapped(out: Any) -> list[Tensor]:
    if isinstance(out, Tensor):
        return [out]
    if isinstance(out, (Record, Object)):
        return list(out.states)
    return list(out.values() if isinstance(out, dict) else out)


class Attention(nn.Module):
    """One head, also over the text where there is one."""

    def __init__(self) -> None:
        super().__init__()
        self.to_q, self.to_k, self.to_v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, hidden_states: Tensor) -> Tensor:
        q, k, v = self.to_q(hidden_states), self.to_k(hidden_states), self.to_v(hidden_states)
        return torch.softmax(q @ k.transpose(1, 2) / math.sqrt(WIDTH), -1) @ v


class FeedForward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.outer(torch.tanh(self.inner(hidden_states)))


class Block(nn.Module):
    """Modulate, attend, feed forward; or, without parts, one linear map of a modulated input."""

    def __init__(self, toy: Toy, two: bool):
        super().__init__()
        self.toy, self.two = toy, two
        self.modulate = nn.Linear(WIDTH, WIDTH)
        self.attn = Attention() if toy.parts else None
        self.ff = FeedForward() if toy.parts else nn.Linear(WIDTH, WIDTH)
        self.text = nn.Linear(WIDTH, WIDTH) if two else None

    def forward(self, hidden_states: Tensor, temb: Tensor, encoder_hidden_states: Tensor | None = None) -> Any:
        length = hidden_states.shape[1]
        if self.toy.writes == "its input at once":
            hidden_states += 0.1 * temb[:, None]
        gate = 1 + 0.3 * self.modulate(temb)[:, None]
        if self.toy.outside:
            gate = gate + SHARED["shift"]
        x = hidden_states
        if self.two:
            assert encoder_hidden_states is not None
            x = torch.cat([hidden_states, encoder_hidden_states], 1)
        if self.attn is not None:
            x = self._add(x, self.attn(x * gate))
        x = self._add(x, self.ff(x * gate))
        if self.toy.writes == "its input" and not self.two:
            x = hidden_states.copy_(x)
        if self.text is None:
            return wrapped((x,), self.toy.returns)
        picture, text = x[:, :length], x[:, length:] + 0.3 * self.text(x[:, length:])
        if self.toy.writes == "its input":
            picture = hidden_states.copy_(picture)
        return wrapped((picture.contiguous(), text), self.toy.returns)

    def _add(self, x: Tensor, part: Tensor) -> Tensor:
        return part.mul_(0.5).add_(x) if self.toy.writes == "a part's output" else x + 0.5 * part


class ToyModel(nn.Module):
    """Tokens in, tokens out, around one row or two of blocks."""

    def __init__(self, toy: Toy):
        super().__init__()
        self.toy = toy
        self.inward, self.outward = nn.Linear(CHANNELS, WIDTH), nn.Linear(WIDTH, CHANNELS)
        self.time = nn.Linear(2, WIDTH)
        self.blocks = nn.ModuleList(Block(toy, toy.streams != "one") for _ in range(toy.layers))
        self.singles = nn.ModuleList(Block(toy, False) for _ in range(toy.layers)) if toy.streams == "both" else None
        self.deaf = False

    @contextmanager
    def cache_context(self, name: str) -> Iterator[None]:
        """As diffusers' own models have it."""
        yield

    def forward(self, hidden_states: Tensor, timestep: Tensor, encoder_hidden_states: Tensor) -> Tensor:
        t = timestep.to(hidden_states.dtype).reshape(-1, 1).expand(len(hidden_states), 1) / 1000
        t = torch.zeros_like(t) if self.deaf else t
        temb = torch.tanh(self.time(torch.cat([torch.sin(6 * t), torch.cos(6 * t)], 1)) + encoder_hidden_states.mean(1))
        SHARED["shift"] = 0.1 * t.mean()
        x, text, kept = self.inward(hidden_states), encoder_hidden_states, []
        late = bool(t.mean() < 0.6)
        for row in [self.blocks] * (2 if self.toy.twice else 1):
            x, text = self._row(row, x, temb, text, kept, late)
        if self.singles is not None:
            x, text = self._row(self.singles, x, temb, None, kept, late)
        if self.toy.writes == "after the blocks":
            x *= 0.7
        if self.toy.reads != "nothing":
            x = x + 0.2 * (kept[0] if self.toy.reads == "the first block" else sum(kept))
        return self.outward(x)

    def _row(self, row: Any, x: Tensor, temb: Tensor, text: Tensor | None, kept: list[Tensor], late: bool) -> Any:
        for i, block in enumerate(row):
            if i:
                x = self._between(x, i, late)
            given = (x, temb) if text is None or not block.two else (x, temb, text)
            if self.toy.keywords:
                out = block(**dict(zip(("hidden_states", "temb", "encoder_hidden_states"), given, strict=False)))
            else:
                out = block(*given)
            x, *more = unwrapped(out)
            text = more[0] if more else text
            if self.toy.reads != "nothing":
                kept.append(x.clone() if self.toy.writes != "nothing" else x)
        return x, text

    def _between(self, x: Tensor, i: int, late: bool) -> Tensor:
        if self.toy.writes == "between the blocks":
            x += 0.1
        if self.toy.between == "an addition" or (self.toy.between == "a late addition" and late):
            return x + 0.1 * i * torch.tanh(x.flip(1))
        if self.toy.between == "a reshape":  # as between spatial and temporal blocks
            return x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)
        return 0.9 * x if self.toy.between == "a scale" else x


def _flux() -> nn.Module:
    sizes = {"num_layers": 2, "num_single_layers": 2, "attention_head_dim": 8, "num_attention_heads": 2}
    text = {"joint_attention_dim": 12, "pooled_projection_dim": 12, "axes_dims_rope": (2, 2, 4), "guidance_embeds": False}
    return diffusers.FluxTransformer2DModel(patch_size=1, in_channels=4, **sizes, **text)


@functools.lru_cache(64)
def twin_of(kind: Kind) -> nn.Module:
    """The model that all runs of a case share which are compared with those of its own one: copying takes longer than running."""
    if isinstance(kind, Toy):
        return tiny.built(lambda: ToyModel(kind)).requires_grad_(False)
    return tiny.built(_flux if kind.kind == "flux" else tiny.KINDS[kind.kind].build).requires_grad_(False)


def model_of(kind: Kind) -> nn.Module:
    """A copy of its own, always with the same weights."""
    return copy.deepcopy(twin_of(kind))


def deaf(model: nn.Module) -> None:
    """From now on the model does not hear what time it is."""
    if isinstance(model, ToyModel):
        model.deaf = True
    else:
        tiny.deaf(model)


def shape_of(kind: Kind, large: bool) -> tuple[int, ...]:
    """Of one sample's latents."""
    if isinstance(kind, Toy) or kind.kind == "flux":
        return (16 if large else 4, CHANNELS)
    shape = tiny.KINDS[kind.kind].shape
    return (*shape[:-1], 16) if large and kind.kind in ("unet", "unet2d") else shape


def arguments(kind: Kind, x: Tensor, t: Tensor, conditions: dict[str, Tensor]) -> dict[str, Any]:
    """How the model is called."""
    name = "sample" if isinstance(kind, Real) and kind.kind in ("unet", "unet2d") else "hidden_states"
    return {name: x, "timestep": t.reshape(-1)[:1].expand(len(x)), **conditions}


def conditions_of(kind: Kind, labels: list[int]) -> dict[str, Tensor]:
    """What the model is told of labels; label 0 is the empty one."""
    if isinstance(kind, Toy):
        return {"encoder_hidden_states": torch.cat([tiny.drawn(1, TEXT, WIDTH, seed=n) for n in labels])}
    if kind.kind != "flux":
        each = [tiny.KINDS[kind.kind].condition(n or None) for n in labels]
        return {name: torch.cat([c[name] for c in each]) for name in each[0]}
    told = {"encoder_hidden_states": torch.cat([tiny.drawn(1, TEXT, 12, seed=n) for n in labels])}
    return told | {"pooled_projections": torch.cat([tiny.drawn(1, 12, seed=n + 1) for n in labels])}


def places_of(kind: Kind, x: Tensor) -> dict[str, Tensor]:
    """Arguments that depend on the size of the latents only."""
    if isinstance(kind, Real) and kind.kind == "flux":
        return {
            "img_ids": torch.arange(3 * x.shape[1], dtype=x.dtype).view(-1, 3) % 5,
            "txt_ids": torch.zeros(TEXT, 3, dtype=x.dtype),
        }
    return {}


def prediction(out: Any, channels: int, x: Tensor) -> Tensor:
    """The noise or velocity in what a model returns."""
    found = out if isinstance(out, Tensor) else out[0]
    return found if found.shape == x.shape else found[:, :channels]
