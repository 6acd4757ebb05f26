"""What lies below a skip connection, on every kind of U-Net that diffusers has and on kinds of blocks that break simpler rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import diffusers
import pytest
import torch
from tests.compat import denoisers as _entries  # noqa: F401  (fills the table)
from tests.compat.checks import Loop, Outputs, difference, same, work
from tests.compat.tiny import DENOISERS, Draw, Inputs, Tiny, along
from tests.methods.tiny import Truth
from tests.tiny import Always
from torch import nn

import omnicache
from omnicache.granularity import Deep, Encoder
from omnicache.models import discover, unet
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.runtime.streams import tensors_of
from omnicache.triggers import Every, Table

STEPS = 8
BASE = "UNet2DConditionModel"


class Beginning(Loop):
    """The first steps of a run of eight."""

    @torch.no_grad()
    def __call__(self, still: bool = False, steps: int = STEPS, batch: int = 1) -> Outputs:
        self.scheduler.set_timesteps(STEPS, still=still)
        out = []
        for call in along(self.tiny, STEPS, batch, still)[:steps]:
            out.append(tuple(t.clone() for t in tensors_of(self.transformer(**call))))
            self.scheduler.step()
        return out


@dataclass(frozen=True)
class Case:
    """A class of diffusers; how many branches it has; what is changed in its entry and in what is built."""

    name: str
    branches: int
    config: dict[str, Any] | None = None
    inputs: Callable[[Draw, int], Inputs] | None = None
    after: Callable[[nn.Module], Any] = lambda model: None
    without: tuple[str, ...] = ()

    def loop(self) -> Beginning:
        entry = DENOISERS[self.name]
        config = {k: v for k, v in entry.config.items() if k not in self.without} | (self.config or {})
        tiny: Tiny = replace(entry, config=config, inputs=self.inputs or entry.inputs)
        loop = Beginning(self.name, tiny)
        self.after(loop.transformer)
        return loop


def _ncsnpp(*levels: str) -> dict[str, Any]:
    """Blocks that hand a second stream on: a small image beside the hidden states."""
    downs = [f"{'Attn' * (kind == 'attention')}SkipDownBlock2D" for kind in levels]
    ups = [f"{'Attn' * (kind == 'attention')}SkipUpBlock2D" for kind in reversed(levels)]
    widths = (32, 64, 64)[: len(levels)]
    kinds = {"down_block_types": tuple(downs), "up_block_types": tuple(ups), "time_embedding_type": "fourier"}
    return {"in_channels": 3, "out_channels": 3, "block_out_channels": widths, "norm_eps": 1e-6, **kinds}


def _picture(d: Draw, batch: int) -> Inputs:
    return {"sample": d.normal(batch, 3, 8, 8), "timestep": torch.tensor(1.0)}


K_UPSCALER: dict[str, Any] = {
    # a block up takes one skip tensor of all that it is given
    "down_block_types": ("KDownBlock2D", *["KCrossAttnDownBlock2D"] * 3),
    "mid_block_type": None,
    "up_block_types": (*["KCrossAttnUpBlock2D"] * 3, "KUpBlock2D"),
    "block_out_channels": (32, 32, 64, 64),
    "norm_num_groups": None,
    "act_fn": "gelu",
    "attention_head_dim": 8,
    "cross_attention_dim": 32,
    "in_channels": 8,
    "out_channels": 5,
    "conv_in_kernel": 1,
    "conv_out_kernel": 1,
    "time_cond_proj_dim": 20,
    "resnet_time_scale_shift": "scale_shift",
    "time_embedding_type": "fourier",
    "timestep_post_act": "gelu",
}


def _upscaled(d: Draw, batch: int) -> Inputs:
    told = {"encoder_hidden_states": d.normal(batch, 5, 32), "timestep_cond": d.normal(batch, 20)}
    return {"sample": d.normal(batch, 8, 16, 16), "timestep": torch.tensor(1.0), **told}


PLANNER: dict[str, Any] = {
    # one level less on the way up than on the way down
    "block_out_channels": (8, 8, 16, 16),
    "in_channels": 4,
    "out_channels": 4,
    "extra_in_channels": 0,
    "time_embedding_type": "positional",
    "use_timestep_embedding": True,
    "flip_sin_to_cos": False,
    "freq_shift": 1.0,
    "out_block_type": "OutConv1DBlock",
    "mid_block_type": "MidResTemporalBlock1D",
    "down_block_types": ("DownResnetBlock1D",) * 4,
    "up_block_types": ("UpResnetBlock1D",) * 3,
    "act_fn": "swish",
}


def _plan(d: Draw, batch: int) -> Inputs:
    return {"sample": d.normal(batch, 4, 16), "timestep": torch.ones(batch, dtype=torch.long)}


PLAIN, ATTENDING = ("SDCascadeResBlock", "SDCascadeTimestepBlock"), ("SDCascadeResBlock", "SDCascadeAttnBlock")
CASCADE_DECODER: dict[str, Any] = {
    # three levels, the blocks of each called again after a mapper
    "block_out_channels": (8, 16, 16),
    "num_attention_heads": (-1, 2, 2),
    "down_num_layers_per_block": (1, 2, 1),
    "up_num_layers_per_block": (1, 2, 1),
    "down_blocks_repeat_mappers": (1, 2, 1),
    "up_blocks_repeat_mappers": (3, 3, 2),
    "block_types_per_layer": (PLAIN, ATTENDING, ATTENDING),
    "switch_level": None,
    "dropout": (0.1,) * 3,
    "self_attn": True,
}


def _residuals(**made: Callable[[Draw], Any]) -> Callable[[nn.Module], Any]:
    """What a ControlNet or an adapter gives besides: made anew for each call, since the model takes lists apart."""

    def add(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, {**kwargs, **{name: make(Draw(7)) for name, make in made.items()}}

    return lambda model: model.register_forward_pre_hook(add, with_kwargs=True)


SKIPS = [(16, 8), (16, 8), (16, 8), (16, 4), (32, 4), (32, 4)]
controlled = _residuals(
    down_block_additional_residuals=lambda d: tuple(d.normal(1, c, s, s) for c, s in SKIPS),
    mid_block_additional_residual=lambda d: d.normal(1, 32, 4, 4),
)
adapted = _residuals(down_intrablock_additional_residuals=lambda d: [d.normal(1, 16, 8, 8), d.normal(1, 32, 4, 4)])
adapted_xl = _residuals(
    down_intrablock_additional_residuals=lambda d: [d.normal(1, 16, 4, 4), d.normal(1, 32, 4, 4), d.normal(1, 32, 4, 4)]
)


def freed(model: nn.Module) -> None:
    model.enable_freeu(s1=0.9, s2=0.2, b1=1.5, b2=1.6)  # type: ignore[operator]


def together(*changes: Callable[[nn.Module], Any]) -> Callable[[nn.Module], Any]:
    return lambda model: [change(model) for change in changes]


CASES = {
    "UNet1DModel": Case("UNet1DModel", 3),
    "UNet1DModel, planner": Case("UNet1DModel", 3, PLANNER, _plan, without=("time_embedding_dim", "sample_size")),
    "UNet2DModel": Case("UNet2DModel", 5),
    "UNet2DModel, no middle": Case("UNet2DModel", 5, {"mid_block_type": None}),
    "UNet2DModel, NCSN++": Case("UNet2DModel", 2, _ncsnpp("plain", "attention"), _picture, without=("norm_num_groups",)),
    "UNet2DModel, NCSN++ of 3 levels": Case(
        "UNet2DModel", 3, _ncsnpp("plain", "attention", "plain"), _picture, without=("norm_num_groups",)
    ),
    BASE: Case(BASE, 5),
    f"{BASE}, 1 and 2 layers": Case(BASE, 4, {"layers_per_block": (1, 2)}),
    f"{BASE}, ControlNet": Case(BASE, 5, after=controlled),
    f"{BASE}, adapter": Case(BASE, 5, after=adapted),
    f"{BASE}, adapter, blocks without attention first": Case(
        BASE,
        5,
        {
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        },
        after=adapted_xl,
    ),
    f"{BASE}, FreeU": Case(BASE, 5, after=freed),
    f"{BASE}, ControlNet, FreeU, adapter": Case(BASE, 5, after=together(controlled, freed, adapted)),
    f"{BASE}, K-upscaler": Case(BASE, 3, K_UPSCALER, _upscaled),
    "AudioLDM2UNet2DConditionModel": Case("AudioLDM2UNet2DConditionModel", 5),
    "UNetControlNetXSModel": Case("UNetControlNetXSModel", 2),
    "UNetControlNetXSModel, FreeU": Case("UNetControlNetXSModel", 2, after=freed),
    "DreamLiteUNetModel": Case("DreamLiteUNetModel", 8),
    "UNet3DConditionModel": Case("UNet3DConditionModel", 5),
    "UNetMotionModel": Case("UNetMotionModel", 5),
    "UNetSpatioTemporalConditionModel": Case("UNetSpatioTemporalConditionModel", 5),
    "I2VGenXLUNet": Case("I2VGenXLUNet", 5),
    "Kandinsky3UNet": Case("Kandinsky3UNet", 2),
    "StableCascadeUNet": Case("StableCascadeUNet", 1),
    "StableCascadeUNet, 3 levels, blocks repeated": Case("StableCascadeUNet", 2, CASCADE_DECODER),
    "UniDiffuserModel": Case("UniDiffuserModel", 2),
}


ONE_QUESTION = (
    "UNet3D",
    "UNetMotion",
    "UNetSpatio",
    "I2VGen",
    "DreamLite",
    "AudioLDM2",
    f"{BASE}, FreeU",
    f"{BASE}, adapter",
    "UNetControlNetXSModel, FreeU",
)
"""Slow, and cut between the same layers as others are."""
TWICE = ("StableCascadeUNet, 3 levels, blocks repeated",)
"""A second call of a module has a value of its own there, and values would be played back in another order."""


def regions(model: nn.Module) -> list[tuple[nn.Module, ...]]:
    """What lies below every branch, from the outermost on."""
    below, found = discover(model).deep_region, []
    assert below is not None
    assert below(-1) == ()
    while modules := below(len(found)):
        found.append(modules)
    return found


@pytest.mark.parametrize("name", CASES)
def test_at_every_branch_work_is_skipped_and_nothing_that_was_skipped_is_read(name):
    """The stand-ins of the first reuse hold NaN; on inputs that stand still the kept value is the true one."""
    case = CASES[name]
    loop = case.loop()
    with work(loop.transformer) as whole:
        still = loop(still=True, steps=3)
    assert discover(loop.transformer).family == "unet"
    assert len(regions(loop.transformer)) == case.branches
    before = 0
    for branch in range(case.branches):
        with omnicache.cache(loop, "deepcache", interval=STEPS, branch=branch) as run, work(loop.transformer) as done:
            out = loop(still=True, steps=3)
        assert difference(still, out) == 0
        assert run.computed == "#.."
        assert not run.trace.notes  # it is noted there if a stand-in was read
        assert before < done[0] < whole[0]  # an outer branch skips more
        before = done[0]


@pytest.mark.parametrize("name", [n for n in CASES if not n.startswith((*ONE_QUESTION, *TWICE))])
def test_along_a_run_the_value_at_the_branch_is_all_that_the_levels_above_need(name):
    case = CASES[name]
    loop = case.loop()
    plain = loop(steps=2)
    for branch in reversed(range(case.branches)):
        truth = Truth()
        with omnicache.cache(loop, Policy(Always(), Deep(branch), truth)):
            assert same(plain, loop(steps=2))
        with omnicache.cache(loop, Policy(Table("#" + "." * 7), Deep(branch), truth.played())):
            assert same(plain, loop(steps=2))
    with omnicache.cache(loop, Policy(Table("#" + "." * 7), Deep(0), truth.played(change=0.1))):
        assert not same(plain, loop(steps=2))


def test_no_transformer_is_taken_for_a_unet():
    unets = {case.name for case in CASES.values()}
    taken = {name for name, tiny in DENOISERS.items() if name not in unets and unet.find(tiny.build(name)) is not None}
    assert not taken


@pytest.mark.parametrize(
    ("name", "entry", "attentions"),
    [
        ("UNet2DConditionModel", "down_blocks.0", 12),
        ("AudioLDM2UNet2DConditionModel", "down_blocks.0", 36),
        ("StableCascadeUNet", "down_blocks.0.0", 8),
        ("UniDiffuserModel", "transformer.transformer_in_blocks.0", 5),
    ],
)
def test_the_map_names_the_entry_and_every_attention_of_all_levels(name, entry, attentions):
    loop = CASES[name].loop()
    found = discover(loop.transformer)
    assert found.entries == (loop.transformer.get_submodule(entry),)
    assert len(found.sites("attention") + found.sites("cross_attention")) == attentions
    assert {site.layers for site in found.all[1:]} == {len(unet.find(loop.transformer).levels)}
    called = []
    found.entries[0].register_forward_pre_hook(lambda *_: called.append(True))
    loop(steps=1)
    assert called


class Ways(nn.Module):
    """Lists by these names; a level of the way down is ``width`` wide."""

    def __init__(self, width: int = 8, **lists: int):
        super().__init__()
        self.head = nn.Linear(64, 64)
        for name, length in lists.items():
            setattr(self, name, nn.ModuleList(nn.Linear(width, width) for _ in range(length)))


@pytest.mark.parametrize("names", [("input_blocks", "output_blocks"), ("encoder_layers", "decoder_layers"), ("in_", "out_")])
def test_lists_are_paired_by_any_names_that_differ_by_the_direction(names):
    net = unet.find(Ways(64, **dict.fromkeys(names, 3)))
    assert net is not None
    assert [name for level in net.levels for name, _ in level] == [f"{name}.{i}" for name in names for i in range(3)]


@pytest.mark.parametrize(
    "model",
    [
        Ways(64, down_blocks=3),
        Ways(64, down_blocks=3, up_layers=3),
        Ways(64, down_blocks=3, up_blocks=0),
        Ways(64, down_blocks=2, up_blocks=3),  # a level up that has no skip tensor to take
        Ways(8, down_blocks=3, up_blocks=3),  # a small part of the model
        nn.Sequential(nn.ModuleList([Ways(64, down_blocks=3, up_blocks=3) for _ in range(2)])),  # blocks in a row
    ],
)
def test_other_lists_are_no_unet(model):
    assert unet.find(model) is None


def test_layers_take_the_one_before_and_on_the_way_up_the_one_at_their_skip_connection():
    """Two levels with two resnets each: skip tensors from before the first layer, four resnets and a sampler."""
    size = {"sample_size": 8, "in_channels": 4, "out_channels": 4, "block_out_channels": (8, 16), "norm_num_groups": 4}
    kinds = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2, "layers_per_block": 2}
    found = discover(diffusers.UNet2DModel(**size, **kinds, add_attention=False))
    layers = found.sites("layer")
    assert [s.name for s in layers] == [
        *("down_blocks.0.resnets.0", "down_blocks.0.resnets.1", "down_blocks.0.downsamplers.0"),
        *("down_blocks.1.resnets.0", "down_blocks.1.resnets.1", "mid_block"),
        *("up_blocks.0.resnets.0", "up_blocks.0.resnets.1", "up_blocks.0.resnets.2"),
        *("up_blocks.1.resnets.0", "up_blocks.1.resnets.1", "up_blocks.1.resnets.2"),
    ]
    assert found.parents == ((-1,), (0,), (1,), (2,), (3,), (4,), (4, 5), (3, 6), (2, 7), (1, 8), (0, 9), (-1, 10))
    assert len(layers[8].modules) == 2  # with the sampler that follows it
    assert [s.layer for s in layers] == [0, 0, 0, 1, 1, 2, 3, 3, 3, 4, 4, 4]


@pytest.mark.parametrize("case", [c for n, c in CASES.items() if "blocks without attention first" not in n], ids=lambda c: c.name)
def test_the_way_up_alone_in_batches_or_one_by_one(case):
    """Without reading the latents: with the encoder kept, steps can be evaluated ahead. Not where a hook adds a residual of one
    sample, whose shape the model then compares with that of its batch."""
    loop, found = case.loop(), []
    for ahead in (0, 3):
        plan = Plan("encoder", (Policy(Every(3), Encoder(), ahead=ahead),), min_steps=0)
        with omnicache.cache(loop, plan) as run:
            found.append(loop(steps=6))
        assert run.computed == "#..#.."
    for one, other in zip(*found, strict=True):
        for a, b in zip(one, other, strict=True):
            assert (a - b).abs().max() <= 1e-5 * b.abs().max()


def test_a_tensor_that_is_returned_twice_is_one_also_when_it_is_reused():
    """An adapter adds to the hidden states after a block, and so to the skip tensor that they are."""
    loop, truth = CASES[f"{BASE}, adapter, blocks without attention first"].loop(), Truth()
    uncached = loop(steps=3)
    with omnicache.cache(loop, Policy(Always(), Encoder(), truth)):
        assert same(loop(steps=3), uncached)
    with omnicache.cache(loop, Policy(Table("#......."), Encoder(), truth.played())) as run:
        assert same(loop(steps=3), uncached)
    assert run.computed == "#.."
