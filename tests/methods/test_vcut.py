"""VCUT (arXiv 2407.19205): the tests that its reference asks for."""

from dataclasses import replace

import pytest
import torch
from tests.tiny import KINDS, Pipe, drawn, sample

import omnicache
from omnicache.errors import OmniCacheError

from .tiny import counted


@pytest.mark.parametrize("guidance", ["batched", "calls"])
def test_exact_changes_nothing_and_asks_once(guidance):
    pipe = Pipe("svd")
    pipe.model.double()
    plain = sample(pipe, guidance)
    with omnicache.cache(pipe, "vcut") as run, counted(pipe.model) as calls:
        torch.testing.assert_close(sample(pipe, guidance), plain, rtol=1e-9, atol=1e-9)
    cross = [n for n, _ in pipe.model.named_modules() if n.endswith(("attn2.to_q", "attn2.to_k"))]
    assert cross
    assert {calls[n] for n in cross} == {1 if guidance == "batched" else 2}
    assert run.computed == "#" + "." * 9
    assert any("temporal" in n for n in cross)


def test_one_vector_a_layer_and_picture_is_kept():
    pipe, most = Pipe("svd"), []
    with omnicache.cache(pipe, "vcut") as run:
        sample(pipe, watch=lambda *_: most.append(run.sessions[0].bytes()))
    width, frames, places = 32, 3, 64
    spatial = sum(n.endswith("attn2") and "temporal" not in n for n, _ in pipe.model.named_modules())
    assert max(most) <= 2 * spatial * 2 * width * 4 * max(frames, places)  # a whole output has frames times places of them
    assert max(most) > 0


@pytest.mark.parametrize("guidance", ["batched", "calls"])
def test_paper_is_the_model_without_cross_attention_along_time(guidance):
    """With branches that are given the same, their mean is what each has."""
    pipe = Pipe("svd")
    pipe.model.double()
    same = lambda label: KINDS["svd"].condition(1)  # noqa: E731
    pipe.kind = replace(pipe.kind, condition=same)
    step, hooks = [0], []
    for name, module in pipe.model.named_modules():
        if name.endswith("attn2") and "temporal" in name:
            hooks.append(module.register_forward_hook(lambda m, args, out: 0 * out if step[0] else None))
    wanted = sample(pipe, guidance, after=lambda i, x: step.__setitem__(0, 1))
    for hook in hooks:
        hook.remove()
    with omnicache.cache(pipe, "vcut", mode="paper") as run, counted(pipe.model) as calls:
        out = sample(pipe, guidance)
    if guidance == "calls":
        torch.testing.assert_close(out, wanted, rtol=1e-9, atol=1e-9)
        assert {calls[n] for n, _ in pipe.model.named_modules() if n.endswith("attn2")} == {2}
    else:  # equal halves: which is which does not show, so spatial cross-attention is computed, and gives the same
        torch.testing.assert_close(out, wanted, rtol=1e-9, atol=1e-9)
        assert "not clear" in str(run)


def test_paper_takes_the_mean_of_the_branches():
    pipe, outs = Pipe("svd"), []
    pipe.model.double()
    for mode, guidance, calls_made in (("exact", "calls", 2), ("paper", "calls", 2), ("paper", "batched", 1)):
        with omnicache.cache(pipe, "vcut", mode=mode), counted(pipe.model) as calls:
            outs.append(sample(pipe, guidance))
        assert {calls[n] for n, _ in pipe.model.named_modules() if n.endswith("attn2")} == {calls_made}
    assert not torch.allclose(outs[0], outs[1])
    torch.testing.assert_close(outs[1], outs[2], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("mode", ["exact", "paper"])
@pytest.mark.parametrize("kind", ["svd", "unet"])
def test_a_longer_context_is_refused(mode, kind):
    pipe = Pipe(kind)
    if kind == "svd":
        more = lambda label: {**KINDS["svd"].condition(label), "encoder_hidden_states": drawn(1, 2, 12, seed=label or 0)}  # noqa: E731
        pipe.kind = replace(pipe.kind, condition=more)
    plain = sample(pipe)
    with (
        pytest.raises(OmniCacheError, match=r"vcut .*(more than one token|finds nothing to cache)"),
        omnicache.cache(pipe, "vcut", mode=mode),
    ):
        sample(pipe)
    assert torch.equal(sample(pipe), plain)


def test_models_without_cross_attention_are_refused():
    with pytest.raises(OmniCacheError, match="needs cross-attention"):
        omnicache.enable(Pipe("dit"), "vcut")
