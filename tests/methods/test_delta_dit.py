"""Delta-DiT: the tests of its reference."""

import pytest
import torch
from torch import nn

import omnicache
from omnicache.errors import OmniCacheError
from omnicache.granularity import Span
from omnicache.models import discover

from .tiny import Doubling, Pipe, counted, dit, number, sd3, text_unet


def outputs(model: nn.Module, inputs: list[float], **options) -> tuple[list[float], str]:
    with omnicache.cache(model, "delta-dit", **options) as run:
        outs = [float(model(number(x), torch.tensor([100.0 - i]))) for i, x in enumerate(inputs)]
    return outs, run.computed


def test_a_span_of_all_blocks_is_the_stacks_residual():
    assert outputs(Doubling(2), [10, 11], span=1.0, boundary=10) == ([40, 41], "#.")


@pytest.mark.parametrize(("span", "skipped"), [(0.75, 3), (0.5, 2), (0.25, 1), (1.0, 4)])
@pytest.mark.parametrize(("boundary", "late"), [(4, False), (1, True)])
def test_the_increments_are_those_of_the_two_spans(span, skipped, boundary, late):
    """Four doubling blocks: at 10 the stream goes 10, 20, 40, 80, 160, and 13 comes next."""
    at, x = [10 * 2**i for i in range(5)], 13.0
    front, rear = at[skipped] - at[0], at[4] - at[4 - skipped]
    outs, _ = outputs(Doubling(4), [10, x], span=span, boundary=boundary)
    rest = 2 ** (4 - skipped)
    assert outs == [160, (x + front) * rest if late else x * rest + rear]


def test_both_increments_are_ready_where_the_spans_change():
    """Full steps are 0, 3, ...; step 1 is early and step 2 late, and neither is computed anew for that. The front part is
    from step 1, since it was computed there."""
    outs, strip = outputs(Doubling(4), [10, 11, 13], interval=3, boundary=2)
    assert strip == "#oo"
    assert outs == [160, 2 * 11 + 140, 2 * (13 + 11 + 60)]


@pytest.mark.parametrize("options", [{"span": 0.0}, {"interval": 1}])
@pytest.mark.parametrize("guidance", ["none", "batched", "calls"])
def test_nothing_to_skip_is_the_plain_model_to_the_bit(options, guidance):
    pipe = Pipe(dit(layers=4))
    plain = pipe(guidance=guidance)
    with omnicache.cache(pipe, "delta-dit", **options):
        assert torch.equal(pipe(guidance=guidance), plain)


def test_blocks_that_add_nothing_give_back_their_input():
    model = Doubling(4)
    for block in model.blocks:
        block.factor.fill_(1.0)
    assert outputs(model, [10, 11, 12, 13, 14, 15], boundary=3)[0] == [10, 11, 12, 13, 14, 15]


@pytest.mark.parametrize("interval", [2, 3])
@pytest.mark.parametrize(("span", "skipped"), [(0.75, 6), (0.5, 4), (0.25, 2), (1.0, 8)])
@pytest.mark.parametrize("model", [dit, sd3])
def test_so_many_blocks_are_called(interval, span, skipped, model):
    """``sum over full steps of L + sum over the others of L - N_c``."""
    pipe = Pipe(model(layers=8))
    with omnicache.cache(pipe, "delta-dit", interval=interval, span=span) as run, counted(pipe.model) as calls:
        pipe(num_inference_steps=20)
    full = len(range(0, 20, interval))
    by_block = [calls[f"transformer_blocks.{i}"] for i in range(8)]
    assert sum(by_block) == 20 * 8 - (20 - full) * skipped
    early = 12 - len(range(0, 12, interval))
    late = 20 - full - early
    assert by_block == [20 - late * (i < skipped) - early * (i >= 8 - skipped) for i in range(8)]
    assert run.computed == "".join("#" if i % interval == 0 else "o" if skipped < 8 else "." for i in range(20))


def test_a_boundary_in_steps_is_the_share_of_a_run():
    pipe = Pipe(dit(layers=4))
    with omnicache.cache(pipe, "delta-dit", boundary=0.6):
        share = pipe(num_inference_steps=20)
    with omnicache.cache(pipe, "delta-dit", boundary=12):
        assert torch.equal(pipe(num_inference_steps=20), share)
    with omnicache.cache(pipe, "delta-dit", boundary=0), counted(pipe.model) as calls:  # late from the beginning
        pipe(num_inference_steps=20)
    assert [calls[f"transformer_blocks.{i}"] for i in range(4)] == [10, 10, 10, 20]
    with omnicache.cache(pipe, "delta-dit", boundary=5):
        assert not torch.equal(pipe(num_inference_steps=20), share)


def test_a_share_counts_alike_from_both_ends():
    for layers in range(2, 12):
        found = discover(Doubling(layers))
        for share in (0.1, 0.25, 0.4, 0.5):
            front, rear = (Span(*ends).select(found) for ends in ((None, share), (-share, None)))
            assert [len(s.modules) for s in front] == [len(s.modules) for s in rear]
    found = discover(Doubling(28))
    assert len(Span(0.25, None).select(found)[0].modules) == 21
    assert Span(0.25, -0.25).select(found)[0].modules == tuple(found.model.blocks[7:21])
    assert Span(-3, -1).select(found)[0].modules == tuple(found.model.blocks[25:27])


def test_models_without_a_row_of_blocks_are_refused():
    with pytest.raises(OmniCacheError, match=r"delta-dit needs front blocks in a row, and UNet2DConditionModel has none"):
        omnicache.enable(Pipe(text_unet()), "delta-dit")
