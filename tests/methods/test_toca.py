"""ToCa (arXiv 2410.05317): the tests that its reference asks for."""

import pytest
import torch

import omnicache
from omnicache.granularity import Attention
from omnicache.methods.toca import toca
from omnicache.models.map import Site
from omnicache.policy import Policy, Rows
from omnicache.predictors import Hold
from omnicache.runtime.step import Step
from omnicache.selectors import TokenScores
from omnicache.selectors import scores as scoring
from omnicache.selectors.scores import attention_received, spread_out
from omnicache.triggers import Every, First

from .tiny import Pipe, counted, dit, full_steps, strip

DDIM = TokenScores(ratio=0.07, interval=3, step_slope=2.0, layer_slope=-0.2, module=2.5)
DDPM = TokenScores(ratio=0.07, interval=4, step_slope=0.4, layer_slope=0.8, module=2.5)


def mlp(layer: int = 0, layers: int = 28) -> Site:
    return Site(f"blocks.{layer}.ff", "mlp", (), layer=layer, layers=layers)


@pytest.mark.parametrize(
    ("scores", "total", "s", "shares"),
    [
        (DDIM, 50, 25, (0.140, 0.174, 0.210)),
        (DDIM, 50, 0, (0.42, 0.521, 0.63)),
        (DDIM, 50, 49, (0.0, 0.0, 0.0)),
        (DDPM, 250, 249, (0.190, 0.109, 0.021)),
    ],
)
def test_share_of_computed_tokens_along_the_run_and_over_the_blocks(scores, total, s, shares):
    step = Step(total - 1 - s, total)  # the release counts its steps s down
    assert [scores.share(step, layer, 28) for layer in (0, 13, 27)] == pytest.approx(shares, abs=5e-4)


def test_the_share_is_clamped_to_the_whole():
    assert TokenScores(ratio=1.0, module=100.0).share(Step(49, 50), 3, 28) == 1.0


def test_full_steps_of_the_rule_decided_once_a_step():
    """The released code reads its interval anew at every layer, so that two steps (45 and 32) are full in one layer only."""
    total, w, interval = 50, 0.4, None
    by_hand = []
    for s in range(total - 1, -1, -1):
        if s == total - 1 or s % interval == 0:
            by_hand.append(s)
            interval = 2 if 0.2 * total <= s < 0.4 * total else round(3 / (1 + w - 2 * w * s / total))
    marks = strip(toca().policies[0].when, total)
    assert [total - 1 - i for i in full_steps(marks)] == by_hand
    assert by_hand == [49, 45, 44, 40, 36, 32, 30, 27, 24, 21, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0]
    released = [49, 44, 40, 36, 30, 27, 24, 21, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0]
    assert sorted({*released, 45, 32}, reverse=True) == by_hand


def test_a_warmup_is_computed_and_flux_has_one():
    """The release computes three steps of FLUX and then one in four, and chooses by attention and age alone."""
    flux = omnicache.methods()["toca"].plan_for(["FluxTransformer2DModel FluxTransformer2DModel/57"])
    assert full_steps(strip(flux.policies[0].when, 20)) == [0, 1, 2, 6, 10, 14, 18]
    chosen = flux.policies[1].which
    assert (chosen.interval, chosen.age_weight, chosen.spread) == (4, 0.25, 0.0)
    assert [chosen.share(Step(n, 20), layer, 28) for n, layer in ((3, 0), (17, 27))] == pytest.approx([0.06, 0.02])
    ramp = strip(toca().policies[0].when, 50)
    assert full_steps(strip(toca(warmup=4).policies[0].when, 50))[:4] == [0, 1, 2, 3]
    assert strip(toca(warmup=4).policies[0].when, 50)[10:] == ramp[10:]


def test_attention_and_mlp_share_the_schedule():
    a, b = toca().policies
    assert a.when == b.when
    assert a.which is None
    assert b.which is not None


@pytest.mark.parametrize("guidance", ["none", "batched", "calls"])
def test_share_0_is_fora_to_the_bit(guidance):
    pipe = Pipe(dit())
    with omnicache.cache(pipe, "fora", interval=3) as run:
        reused = pipe(num_inference_steps=12, guidance=guidance)
        marks = run.computed
    with omnicache.cache(pipe, "toca", interval=3, slope=0.0, ratio=0.0) as run:
        assert torch.equal(pipe(num_inference_steps=12, guidance=guidance), reused)
    assert run.computed == marks
    with omnicache.cache(pipe, "toca", interval=3, slope=0.0, ratio=0.5, step_slope=0.0):
        assert not torch.equal(pipe(num_inference_steps=12, guidance=guidance), reused)


@pytest.mark.parametrize("guidance", ["none", "batched", "calls"])
def test_share_1_is_attention_reused_and_mlp_exact(guidance):
    pipe = Pipe(dit())
    when = First(1) | Every(3, phase=0, backwards=True)
    with omnicache.cache(pipe, Policy(when, Attention(), Hold())):
        attention_reused = pipe(num_inference_steps=12, guidance=guidance)
    everything = {"ratio": 1.0, "module": 1.0, "step_slope": 0.0, "layer_slope": 0.0}
    with omnicache.cache(pipe, "toca", interval=3, slope=0.0, **everything) as run:
        out = pipe(num_inference_steps=12, guidance=guidance)
    torch.testing.assert_close(out, attention_reused, rtol=1e-6, atol=1e-4)
    assert run.computed == "#o#oo#oo#oo#"


def test_partial_steps_compute_the_truncated_share_of_rows():
    model, rows = dit(), []
    for block in model.transformer_blocks:
        block.ff.net[0].register_forward_pre_hook(lambda _, args: rows.append(args[0].shape[1]))
    pipe = Pipe(model)
    options = {"interval": 4, "slope": 0.0, "ratio": 0.249, "module": 1.0, "step_slope": 0.0, "layer_slope": 0.0}
    with omnicache.cache(pipe, "toca", **options) as run, counted(model) as calls:
        pipe(num_inference_steps=9)
    assert run.computed == "#ooo#ooo#"
    assert set(rows) == {16, int(0.249 * 16)}
    assert rows.count(3) == 6 * 3
    assert calls["transformer_blocks.0.attn1"] == 3


def test_refreshed_rows_are_kept_and_the_whole_cache_is_added():
    """A row computed at one partial step is what the next partial step, which computes another, reuses."""
    model = dit(layers=2)
    pipe, seen, kept = Pipe(model), [], []
    options = {
        "interval": 4,
        "slope": 0.0,
        "ratio": 0.25,
        "module": 1.0,
        "step_slope": 0.0,
        "layer_slope": 0.0,
        "spread": 0.0,
        "age_weight": 100.0,
    }
    first, second = model.transformer_blocks
    with omnicache.cache(pipe, "toca", **options) as run:
        session = run.sessions[0]
        look = lambda *_: kept.extend(e.tensors[0].clone() for e in cell(session, "transformer_blocks.0.ff").history)  # noqa: E731
        hooks = [first.ff.register_forward_hook(lambda m, args, out: seen.append(out.clone()))]
        hooks += [second.register_forward_pre_hook(look)]
        pipe(num_inference_steps=5)
        for hook in hooks:
            hook.remove()
    assert run.computed == "#ooo#"
    for step in (1, 2, 3):
        changed = (kept[step - 1] != kept[step]).any(-1)[0]
        assert changed.sum() == 4  # a quarter of 16, and none of them twice: the oldest come first
        torch.testing.assert_close(kept[step][0, changed], seen[step][0], rtol=1e-6, atol=1e-6)
    assert (kept[3] != seen[0]).any(-1).sum() == 12


def cell(session, name):
    """What the one run in progress keeps for a site."""
    (run,) = session.runs
    (branch,) = run.branches.values()
    return next(found for (_, site, _), found in branch.cells.items() if site.name == name)


def test_after_k_partial_steps_without_it_a_token_is_k_steps_old():
    scores = TokenScores(ratio=0.25, module=1.0, step_slope=0.0, layer_slope=0.0, age_weight=0.0, spread=0.0)
    site, state = mlp(), scores.init()
    attention = Site("blocks.0.attn1", "attention", (torch.nn.Identity(),), layer=0, layers=28)
    state = scores.observe(state, attention, {"hidden_states": torch.zeros(1, 16, 8)}, None)
    x = torch.zeros(1, 16, 8)
    for k in range(1, 6):
        chosen, state = scores.choose(state, site, Step(k, 50), Rows(x))
        index = chosen.index
        (age,) = state[1].values()
        assert index.shape == (1, 4)
        assert age[0, index[0]].eq(0).all()
        others = torch.ones(16, dtype=torch.bool).scatter(0, index[0], False)
        assert age[0, others].eq(k).all()  # without ages and attention in the score the same four are always chosen
    state = scores.observe(state, attention, {"hidden_states": x}, None)
    assert not state[1]  # a full step makes all of them new


def test_with_its_weight_staleness_goes_round_all_tokens():
    scores = TokenScores(ratio=0.25, module=1.0, step_slope=0.0, layer_slope=0.0, age_weight=0.25, spread=0.0)
    site, state, seen = mlp(), scores.init(), []
    for k in range(1, 5):
        chosen, state = scores.choose(state, site, Step(k, 50), Rows(torch.zeros(1, 16, 8)))
        seen += chosen.index[0].tolist()
    assert sorted(seen) == list(range(16))


def test_when_none_is_chosen_all_grow_older():
    scores = TokenScores(ratio=0.0)
    chosen, state = scores.choose(scores.init(), mlp(), Step(3, 50), Rows(torch.zeros(1, 16, 8)))
    assert chosen is None
    _, state = scores.choose(state, mlp(), Step(4, 50), Rows(torch.zeros(1, 16, 8)))
    assert next(iter(state[1].values())).eq(2).all()


@pytest.mark.parametrize("tokens", [1, 2, 3, 4])
def test_equal_scores_pick_one_token_of_every_cell_before_a_second(tokens):
    scores = TokenScores(ratio=tokens * 4 / 16, module=1.0, step_slope=0.0, layer_slope=0.0, age_weight=0.0, cell=2, spread=0.6)
    received = {"blocks.0": torch.ones(1, 16)}
    chosen, _ = scores.choose((received, {}), mlp(), Step(1, 50), Rows(torch.zeros(1, 16, 8)))
    index = chosen.index
    cell = (index[0] // 4 // 2) * 2 + index[0] % 4 // 2
    assert len(index[0]) == 4 * tokens
    assert set(cell.tolist()) == {0, 1, 2, 3}


def test_the_best_token_of_a_cell_is_raised_by_the_bonus():
    raised = spread_out(torch.arange(16.0)[None] + 1, side=4, cell=2, bonus=0.6)[0].view(4, 4)
    plain = torch.arange(16.0).view(4, 4) + 1
    assert torch.equal(raised != plain, torch.tensor([[0, 0, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0], [0, 1, 0, 1]]).bool())
    torch.testing.assert_close(raised[1, 1], torch.tensor(6 * 1.6))


def test_permuting_the_tokens_permutes_the_choice():
    scores = TokenScores(ratio=0.3, module=1.0, step_slope=0.0, layer_slope=0.0, spread=0.0)
    model = dit()
    attention = Site("blocks.0.attn1", "attention", (model.transformer_blocks[0].attn1,), layer=0, layers=28)
    draw = torch.Generator().manual_seed(0)
    x, order = torch.randn(2, 16, 16, generator=draw), torch.randperm(16, generator=draw)
    chosen = []
    for tokens in (x, x[:, order]):
        state = scores.observe(scores.init(), attention, {"hidden_states": tokens}, None)
        chosen.append(scores.choose(state, mlp(), Step(1, 50), Rows(tokens))[0].index % 16)
    assert [sorted(order[i].tolist()) for i in chosen[1]] == chosen[0].tolist()


def test_attention_received_is_the_column_sum_of_the_softmax_averaged_over_heads():
    attention = dit().transformer_blocks[0].attn1
    x = torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(0))
    q, k = (f(x).view(2, 16, 2, 8) for f in (attention.to_q, attention.to_k))
    weights = torch.einsum("bqhd,bkhd->bhqk", q, k).div(8**0.5).softmax(-1)
    expected = weights.mean(1).sum(1)
    got = attention_received(attention, x)
    torch.testing.assert_close(got, expected / expected.norm(dim=1, keepdim=True))
    torch.testing.assert_close(got.norm(dim=1), torch.ones(2))


def test_off_is_the_plain_model():
    pipe = Pipe(dit())
    plain = pipe(guidance="batched")
    with omnicache.cache(pipe, "toca", interval=1, slope=0.0):
        assert torch.equal(pipe(guidance="batched"), plain)


class Projections(torch.nn.Module):
    """Queries and keys as a model's attention has them."""

    def __init__(self, norm=None, keys=16):
        super().__init__()
        torch.manual_seed(0)
        self.heads, self.to_q, self.to_k = 4, torch.nn.Linear(8, 16), torch.nn.Linear(8, keys)
        if norm is not None:
            self.norm_q, self.norm_k = torch.nn.RMSNorm(norm), torch.nn.RMSNorm(norm)


@pytest.mark.parametrize("norm", [None, 4, 16])
def test_attention_in_parts_is_attention_at_once(norm, monkeypatch):
    attention, x = Projections(norm), torch.randn(2, 50, 8, generator=torch.Generator().manual_seed(0))
    at_once = attention_received(attention, x)
    seen, plain = [], torch.softmax
    monkeypatch.setattr(scoring, "PART", 2 * 4 * 50 * 7)
    monkeypatch.setattr(torch, "softmax", lambda t, dim: seen.append(t.numel()) or plain(t, dim=dim))
    torch.testing.assert_close(attention_received(attention, x), at_once)
    assert len(seen) == 8
    assert max(seen) == scoring.PART
    assert at_once.norm(dim=1).tolist() == pytest.approx([1.0, 1.0])


def test_norms_over_all_heads_come_before_the_heads_are_taken_apart():
    attention, x = Projections(16), torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(0))
    q = attention.norm_q(attention.to_q(x)).unflatten(-1, (4, 4)).transpose(1, 2)
    k = attention.norm_k(attention.to_k(x)).unflatten(-1, (4, 4)).transpose(1, 2)
    by_hand = torch.softmax(q @ k.transpose(-1, -2) / 2, dim=-1).sum(2).mean(1)
    torch.testing.assert_close(attention_received(attention, x), by_hand / by_hand.norm(dim=1, keepdim=True))


def test_keys_that_several_heads_share_give_no_score():
    assert attention_received(Projections(keys=8), torch.zeros(1, 5, 8)) is None
