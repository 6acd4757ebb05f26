"""Where to cache: which sites each word picks, and the algebra of places."""

import pytest
from torch import nn

from omnicache.errors import OmniCacheError
from omnicache.granularity import MLP, Attention, Block, Blocks, CrossAttention, Deep, Denoiser, Stack, Within
from omnicache.models import discover
from omnicache.policy import Policy
from omnicache.runtime.roles import needs
from omnicache.triggers import Every

from ..methods.tiny import Curves, dit, latte, sd3, text_unet, unet


def names(where, model) -> list[str]:
    return [site.name for site in where.select(discover(model))]


def test_a_transformer():
    model = dit(layers=3)
    blocks = [f"transformer_blocks.{i}" for i in range(3)]
    assert names(Attention(), model) == [f"{b}.attn1" for b in blocks]
    assert names(MLP(), model) == [f"{b}.ff" for b in blocks]
    assert names(Blocks(), model) == blocks
    assert names(Stack(), model) == ["transformer_blocks"]
    assert names(Denoiser(), model) == ["DiTTransformer2DModel"]
    assert names(CrossAttention(), model) == names(Deep(), model) == []
    (stack,) = Stack().select(discover(model))
    assert stack.modules == tuple(model.transformer_blocks)
    assert stack.layout == "chain"


def test_two_streams_have_an_mlp_each_and_one_joint_attention():
    model = sd3(layers=2)
    assert names(Attention(), model) == ["transformer_blocks.0.attn", "transformer_blocks.1.attn"]
    # the last block has no text stream to feed forward
    assert names(MLP(), model) == ["transformer_blocks.0.ff", "transformer_blocks.0.ff_context", "transformer_blocks.1.ff"]


def test_two_lists_of_blocks_are_one_stack():
    model = latte(layers=2)
    assert names(Stack(), model) == ["transformer_blocks+temporal_transformer_blocks"]
    assert len(names(Blocks(), model)) == 4
    assert names(CrossAttention(), model) == ["transformer_blocks.0.attn2", "transformer_blocks.1.attn2"]
    assert len(names(Attention(), model)) == 6
    assert len(names(MLP(), model)) == 4


def test_within_some_blocks_of_all_or_of_each_row():
    assert names(MLP() & Within(2, None), dit(layers=3)) == ["transformer_blocks.2.ff"]
    film = latte(layers=2)  # blocks along space and time take turns
    assert names(MLP() & Within(0, 1), film) == ["transformer_blocks.0.ff"]
    assert names(MLP() & Within(0, 1, of="row"), film) == ["transformer_blocks.0.ff", "temporal_transformer_blocks.0.ff"]
    levels = names(Attention() & Within(0, 1), text_unet(levels=2))
    assert levels
    assert all(name.startswith("down_blocks.0") for name in levels)


def test_u_nets_have_attention_a_deep_part_and_no_row_of_blocks():
    model = text_unet(levels=2)
    assert names(Stack(), model) == names(Deep(0), model) == ["deep[0]"]
    assert names(Blocks(), model) == []
    attention, cross = names(Attention(), model), names(CrossAttention(), model)
    assert len(attention) == 2 * len(cross) == 2 * (2 + 1 + 3)
    assert names(Deep(2), model) == ["deep[2]"]
    assert names(Deep(99), model) == []
    assert names(Attention(), unet(attention=False)) == ["mid_block.attentions.0"]


@pytest.mark.parametrize("index", [0, 2, -1, -3])
def test_one_block(index):
    model = dit(layers=3)
    assert names(Block(index), model) == [f"transformer_blocks.{index % 3}"]
    assert names(Block(3), model) == names(Block(-4), model) == []


def test_a_slice_of_blocks():
    model = dit(layers=4)
    assert names(Blocks(1, -1), model) == ["transformer_blocks.1", "transformer_blocks.2"]


def test_set_algebra():
    model = latte(layers=2)
    everything, cross = Attention() | MLP(), CrossAttention()
    assert names(everything, model) == names(Attention(), model) + names(MLP(), model)
    assert names(Attention() & cross, model) == names(cross, model)
    assert names(Attention() - cross, model) == [n for n in names(Attention(), model) if "attn2" not in n]
    assert names(Attention() | Attention(), model) == names(Attention(), model)
    assert names(cross - Attention(), model) == []


def test_any_module_with_a_list_of_blocks():
    model = Curves(lambda t: 1.0, layers=2)
    assert names(Attention() | MLP(), model) == ["blocks.0.attn", "blocks.1.attn", "blocks.0.mlp", "blocks.1.mlp"]


def test_lists_that_are_too_small_or_hold_no_weights_are_no_blocks():
    class Other(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(nn.Linear(32, 32) for _ in range(3))
            self.one = nn.ModuleList([nn.Linear(32, 32)])
            self.heads = nn.ModuleList(nn.Linear(1, 1) for _ in range(2))
            self.acts = nn.ModuleList(nn.SiLU() for _ in range(4))

    assert names(Stack(), Other()) == ["blocks"]
    with pytest.raises(OmniCacheError, match="Linear has no list of blocks"):
        discover(nn.Linear(4, 4))


def test_what_is_missing_is_said_in_words():
    found = discover(dit())
    assert "needs a U-Net" in needs("m", Policy(Every(1), Deep()), found)
    assert "needs cross-attention" in needs("m", Policy(Every(1), CrossAttention()), found)
    assert "no skip connection number 30" in needs("m", Policy(Every(1), Deep(30)), discover(text_unet()))


def test_sites_know_their_layer():
    sites = MLP().select(discover(dit(layers=3)))
    assert [(s.layer, s.layers) for s in sites] == [(0, 3), (1, 3), (2, 3)]
    assert all(isinstance(s.modules[0], nn.Module) for s in sites)
