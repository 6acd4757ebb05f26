"""FasterCache (arXiv 2410.19355): the tests that its reference asks for. Its other half is in test_cfg_cache.py."""

import pytest
import torch
from tests.tiny import Pipe as Loop
from tests.tiny import sample

import omnicache
from omnicache.methods.fastercache import fastercache
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.predictors import Hold
from omnicache.runtime.step import Step

from .tiny import Curves, counted, full_steps, strip

RELEASED = {
    # steps T; whether attention is reused at step c, counted from 1; its weight there
    "LatteTransformer3DModel": (50, lambda c: c >= 16 and c % 2 == 0, lambda c: 0.5),
    "CogVideoXTransformer3DModel": (50, lambda c: c >= 18 and c % 3, lambda c: 0.3),
    "STDiT3": (30, lambda c: c > 7 and c % 2 == 0, lambda c: 0.9 * (c - 7) / 20),
    "LatteT2V": (150, lambda c: c >= 45 and c % 3, lambda c: 0.3),
    "VchitectXLTransformerModel": (100, lambda c: c > 30 and c % 2 == 0, lambda c: 0.0),
    "MochiTransformer3DModel": (64, lambda c: c - 1 >= 20 and (c - 1) % 2 == 0, lambda c: max(0.5, (c - 1) / 63)),
}


@pytest.mark.parametrize("model", RELEASED)
def test_released_schedules_and_weights(model):
    total, reused, weight = RELEASED[model]
    policy = omnicache.methods()["fastercache"].plan_for([model]).policies[0]
    assert full_steps(strip(policy.when, total)) == [c - 1 for c in range(1, total + 1) if not reused(c)]
    for c in filter(reused, range(1, total + 1)):
        assert policy.how.at(Step(c - 1, total)) == pytest.approx(weight(c))


def test_attention_on_a_line_is_exact_at_half_the_difference():
    model = Curves(lambda t: 2.0 + 0.1 * t)
    x = torch.randn(1, 4, 8, 8, dtype=torch.float64)
    with omnicache.cache(model, Plan("one", fastercache(start=0.0).policies[:1])) as run:
        outs = [model(x, 9.0 - i) for i in range(8)]
    assert run.computed == "#.#.#.#."
    for i, out in enumerate(outs):  # of step 1 there is a single value to hold
        assert torch.allclose(out, _plain(model, x, 9.0 - i), rtol=1e-12) == (i != 1)


def _plain(model, x, t):
    h = x
    for block in model.blocks:
        for part in (block.attn, block.mlp):
            h = h + block.gate(t) * part.forward(h, t)
    return 0.3 * h


@pytest.mark.parametrize("guidance", ["batched", "calls"])
def test_without_weight_it_is_plain_reuse(guidance):
    pipe = Loop("latte")
    ours = fastercache(weight=0.0)
    plain = Plan("plain", (Policy(ours.policies[0].when, ours.policies[0].where, Hold()), ours.policies[1]))
    outs = []
    for plan in (ours, plain):
        with omnicache.cache(pipe, plan):
            outs.append(sample(pipe, guidance))
    assert torch.equal(*outs)


@pytest.mark.parametrize("kind", ["dit", "sd3", "latte", "unet"])
def test_both_layouts_of_guidance_draw_the_same(kind):
    """A half extrapolates from its own rows, never from the other branch's, whichever half it is."""
    pipe, outs = Loop(kind), []
    pipe.model.double()
    with omnicache.cache(pipe, "fastercache", start=0.2, cfg_start=0.3, cfg_interval=4, cfg_phase=0):
        for guidance, swap in (("batched", False), ("batched", True), ("calls", False)):
            outs.append(sample(pipe, guidance, swap=swap))
    for out in outs[1:]:
        torch.testing.assert_close(out, outs[0], rtol=1e-8, atol=1e-8)


def test_only_computed_outputs_are_continued_and_whole_steps_after_halves_compute():
    pipe = Loop("latte")
    with omnicache.cache(pipe, "fastercache", start=0.0, cfg_start=0.3, cfg_interval=4, cfg_phase=3), counted(pipe.model) as calls:
        sample(pipe)
        before = calls["transformer_blocks.0.attn1"]
        sample(pipe)
        computed = calls["transformer_blocks.0.attn1"] - before
    # 0, 2, 4, 6, 8 by its own schedule; 3 is whole and follows whole ones, so it reuses; 7 follows halves that have computed.
    assert computed == 6


def test_a_model_without_guidance_gets_the_attention_alone():
    model = Curves(lambda t: 1.0 + 0.1 * t)
    with omnicache.cache(model, "fastercache", start=0.0, cfg_start=0.0) as run:
        for i in range(8):
            model(torch.ones(1, 4, 8, 8, dtype=torch.float64), 9.0 - i)
    assert "o" in run.computed
    assert "Nothing of guidance was reused" in str(run)
