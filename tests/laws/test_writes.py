"""A model may write to its own tensors. What is kept must survive that, and what was written to must not be taken for a value.

(Part of laws 8 and 11: each of these would otherwise be a wrong picture without a word.)
"""

from __future__ import annotations

import pytest
import torch
from tests.tiny import Pipe, deaf, sample
from torch import nn

import omnicache
from omnicache.granularity import MLP, Attention, Blocks, Stack
from omnicache.policy import Policy, Predictor, Where
from omnicache.predictors import Hold, Residual, Taylor
from omnicache.triggers import Every


class Part(nn.Module):
    """A sub-layer whose output is its input and a fixed amount."""

    def __init__(self, add: float):
        super().__init__()
        self.weight = nn.Parameter(torch.full((1, 1, 4), add))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return hidden_states * 0 + self.weight


class Writer(nn.Module):
    """A block that adds what its sub-layers give, with plain sums or by writing to one of the tensors at hand."""

    def __init__(self, way: str):
        super().__init__()
        self.way, self.self_attention, self.mlp = way, Part(1.0), Part(10.0)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        a, m = self.self_attention(hidden_states), self.mlp(hidden_states)
        if self.way == "to its input":
            return hidden_states.add_(a).add_(m)
        if self.way == "to a sub-layer's output":
            return a.add_(hidden_states).add_(m)
        return hidden_states + a + m


class Model(nn.Module):
    """Adds 11 a block; between the blocks, or after them, it may write to the stream."""

    def __init__(self, way: str):
        super().__init__()
        self.way = way
        self.blocks = nn.ModuleList([Writer(way) for _ in range(3)])

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        x = sample.clone()
        for block in self.blocks:
            x = block(x)
            if self.way == "between the blocks":
                x += 100
        if self.way == "after the blocks":
            x *= 2
        return x


WAYS = ["to nothing", "to its input", "to a sub-layer's output", "between the blocks", "after the blocks"]
PLACES: list[tuple[Where, Predictor]] = [
    (Stack(), Residual(Hold())),
    (Stack(), Residual(Taylor(1))),
    (Blocks(), Residual(Hold())),
    (Blocks(), Hold()),
    (Attention() | MLP(), Hold()),
    (Attention() | MLP(), Residual(Hold())),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("where", "how"), PLACES, ids=[f"{w}-{h}" for w, h in PLACES])
@pytest.mark.parametrize("inference", [False, True])
def test_a_model_that_writes_to_its_tensors(way: str, where: Where, how: Predictor, inference: bool) -> None:
    """Increments never change here: what keeps them is exact whatever the input does, and the others where it is the same."""
    torch.manual_seed(0)
    model = Model(way)
    suited = where in (Stack(), Blocks()) if isinstance(how, Residual) else where not in (Stack(), Blocks())
    inputs = [torch.randn(2, 5, 4) for _ in range(9)] if suited else [torch.randn(2, 5, 4)] * 9
    mode = torch.inference_mode() if inference else torch.no_grad()
    with mode:
        wanted = [model(v, torch.tensor([9 - i])) for i, v in enumerate(inputs)]
        with omnicache.cache(model, Policy(Every(3), where, how)) as run:
            for i, v in enumerate(inputs):
                assert torch.allclose(model(v, torch.tensor([9 - i])), wanted[i], atol=1e-4), i
    assert set(run.computed) != {"#"}, run.trace.notes


@pytest.mark.parametrize("branch", [0, 1])
def test_free_u_writes_to_the_exit_of_the_deep_region(branch: int) -> None:
    """FreeU scales half of the channels in place: once a step, not once more at every reuse."""
    pipe = Pipe("unet")
    deaf(pipe.model)
    pipe.model.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)
    outs: list[torch.Tensor] = []
    with omnicache.cache(pipe, "deepcache", interval=4, branch=branch) as run:
        sample(pipe, still=True, watch=lambda step, given, out: outs.append(out.clone()))
    assert "." in run.computed
    for out in outs:
        assert torch.allclose(out, outs[0], rtol=1e-4, atol=1e-5)
