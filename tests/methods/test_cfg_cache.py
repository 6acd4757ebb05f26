"""CFG-Cache (FasterCache, arXiv 2410.19355): the tests that its reference asks for."""

import pytest
import torch
from tests.tiny import Pipe as Loop
from tests.tiny import picture, sample

import omnicache
from omnicache.methods.cfg_cache import cfg_cache
from omnicache.methods.fastercache import fastercache

from .tiny import full_steps, strip

RELEASED = {
    # steps T; whether the unconditional branch is left out at step c, counted from 1; LF and HF factors
    "LatteTransformer3DModel": (50, lambda c: c >= 18 and c % 5, lambda c: 1.1 if c < 45 else 1, lambda c: 1.1 if c >= 45 else 1),
    "CogVideoXTransformer3DModel": (
        50,
        lambda c: c >= 18 and c % 5,
        lambda c: 1.1 if c <= 40 else 1,
        lambda c: 1.1 if c >= 30 else 1,
    ),
    "STDiT3": (30, lambda c: c > 11 and c % 5, lambda c: 1.15 if c <= 25 else 1, lambda c: 1.15 if c >= 20 else 1),
    "LatteT2V": (150, lambda c: c >= 40 and c % 6, lambda c: 1.1 if c <= 130 else 1, lambda c: 1.2 if c > 130 else 1),
    "VchitectXLTransformerModel": (
        100,
        lambda c: c > 30 and c % 5,
        lambda c: 1.05 if c < 80 else 1,
        lambda c: 1.1 if c > 60 else 1,
    ),
    # counted from 0
    "MochiTransformer3DModel": (
        64,
        lambda c: c - 1 >= 22 and (c - 1) % 5 and c - 1 != 63,
        lambda c: 1.15 if c - 1 <= 50 else 1,
        lambda c: 1.25 if c - 1 >= 30 else 1,
    ),
}


@pytest.mark.parametrize("model", RELEASED)
def test_released_schedules(model):
    total, left_out, low, high = RELEASED[model]
    policy = omnicache.methods()["fastercache"].plan_for([model]).policies[1]
    assert full_steps(strip(policy.when, total)) == [c - 1 for c in range(1, total + 1) if not left_out(c)]
    bands = policy.how.inner
    for c in range(1, total + 1):
        now = omnicache.runtime.step.Step(c - 1, total)
        assert bands.factors(now, now) == pytest.approx((low(c), high(c)))


def test_alone_it_is_fastercache_without_its_attention():
    assert cfg_cache().policies == fastercache().policies[1:]


@pytest.mark.parametrize("guidance", ["batched", "calls"])
@pytest.mark.parametrize("kind", ["dit", "sd3", "latte", "unet"])
def test_both_layouts_of_guidance_draw_the_same(kind, guidance):
    pipe = Loop(kind)
    pipe.model.double()
    with omnicache.cache(pipe, "cfg-cache", start=0.3, interval=3, phase=0) as run:
        out = sample(pipe, guidance)
        one = sample(pipe, "batched")
    torch.testing.assert_close(out, one, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(out, sample(pipe, guidance), rtol=1e-3)
    assert "o" in run.computed


@pytest.mark.parametrize("guidance", ["batched", "calls"])
def test_a_reused_step_runs_one_branch(guidance):
    pipe, rows = Loop("sd3"), []
    pipe.model.register_forward_hook(lambda m, args, out: rows.append(len(out.sample)))
    seen = []

    def note(*_):
        seen.append(sum(rows))
        rows.clear()

    with omnicache.cache(pipe, "cfg-cache", start=0.3, interval=3, phase=0):
        sample(pipe, guidance)
        rows.clear()
        sample(pipe, guidance, after=note)
    assert seen == [2, 2, 2, 2, 1, 1, 2, 1, 1, 2]


@pytest.mark.parametrize("guidance", ["batched", "calls"])
def test_at_scale_one_the_output_is_unchanged(guidance):
    pipe = Loop("dit")
    plain = sample(pipe, guidance, scale=1.0)
    with omnicache.cache(pipe, "cfg-cache", start=0.2) as run:
        assert torch.equal(sample(pipe, guidance, scale=1.0), plain)
    assert "between 0 and 1" in str(run)


def test_the_real_pipeline_of_dit_hands_a_doubled_batch_without_the_variance():
    pipe = Loop("dit").pipeline()
    plain = picture(pipe, "first")
    with omnicache.cache(pipe, "cfg-cache", start=0.4, interval=2, phase=0) as run:
        out = picture(pipe, "first")
    assert run.computed == "#####o#o#o"
    assert 0 < (out - plain).abs().max() < 0.1


def test_compounding_is_an_option_and_differs():
    pipe, outs = Loop("dit"), []
    for compound in (False, True):
        with omnicache.cache(pipe, "cfg-cache", start=0.3, compound=compound):
            outs.append(sample(pipe))
    assert not torch.equal(*outs)
