"""DBCache and First-Block-Cache: the tests of their references."""

import pytest
import torch
from torch import nn

import omnicache
from omnicache.errors import OmniCacheError

from .tiny import Pipe, counted, dit, sd3, text_unet

MODELS = {"dit": lambda: dit(layers=4), "sd3": lambda: sd3(layers=4)}


class Scale(nn.Module):
    def __init__(self, factor: float):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor, dtype=torch.float64), requires_grad=False)

    def forward(self, hidden_states):
        return hidden_states * self.factor


class Chain(nn.Module):
    def __init__(self, blocks: int = 4):
        super().__init__()
        self.blocks = nn.ModuleList(Scale(2.0) for _ in range(blocks))

    def forward(self, hidden_states, timestep):
        for block in self.blocks:
            hidden_states = block(hidden_states)
        return hidden_states


def strip(method: str, values: list[float], **options) -> str:
    model = Chain()
    with omnicache.cache(model, method, **options) as run:
        for i, value in enumerate(values):
            model(torch.full((1, 1, 1), value, dtype=torch.float64), torch.tensor([100.0 - i]))
    return run.computed


def drift(share: float, steps: int = 10) -> list[float]:
    """Values that move by ``share`` of the last computed one a step; what is computed is found with the threshold 0.1."""
    values, reference = [1.0], 1.0
    for _ in range(steps - 1):
        moved = values[-1] + share * 0.1 * reference
        if abs(moved - reference) / reference >= 0.1 - 1e-12:
            reference = moved
        values.append(moved)
    return values


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("guidance", ["none", "batched", "calls"])
def test_one_front_block_is_first_block_cache(model, guidance):
    pipe = Pipe(MODELS[model]())
    for threshold in (0.05, 0.2, 1.0):
        with omnicache.cache(pipe, "first-block-cache", threshold=threshold) as one:
            first = pipe(guidance=guidance)
        with omnicache.cache(pipe, "dbcache", front=1, warmup=1, threshold=threshold) as other:
            second = pipe(guidance=guidance)
        assert torch.equal(first, second)
        assert one.computed == other.computed


@pytest.mark.parametrize("method", ["first-block-cache", "dbcache"])
@pytest.mark.parametrize("guidance", ["none", "calls"])
def test_without_tolerance_it_is_the_plain_model_to_the_bit(method, guidance):
    pipe = Pipe(dit(layers=4))
    plain = pipe(guidance=guidance)
    options = {} if method == "first-block-cache" else {"front": 2, "warmup": 1}
    with omnicache.cache(pipe, method, threshold=0.0, **options):
        assert torch.equal(pipe(guidance=guidance), plain)


def test_equal_inputs_are_computed_once_and_exact():
    model = Chain()
    x = torch.full((1, 1, 1), 3.0, dtype=torch.float64)
    with omnicache.cache(model, "dbcache", front=1, back=1, warmup=1) as run:
        outs = [float(model(x, torch.tensor([100.0 - i]))) for i in range(6)]
    assert run.computed == "#....."
    assert outs == [48.0] * 6


def test_blocks_at_both_ends_run_at_every_step():
    pipe = Pipe(dit(layers=5))
    with omnicache.cache(pipe, "dbcache", front=2, back=1, warmup=1, threshold=0.3) as run, counted(pipe.model) as calls:
        pipe()
    computed = run.computed.count("#")
    assert 1 < computed < 10
    assert [calls[f"transformer_blocks.{n}.attn1"] for n in range(5)] == [10, 10, computed, computed, 10]


@pytest.mark.parametrize(("share", "marks"), [(0.4, "#..#..#..#"), (0.6, "#.#.#.#.#.")])
def test_a_steady_drift_is_compared_with_the_last_computed_step(share, marks):
    assert strip("first-block-cache", drift(share), threshold=0.1) == marks


def test_what_goes_to_and_fro_is_never_computed_but_for_the_limits():
    swing = [1.0, 1.06] * 5
    assert strip("first-block-cache", swing, threshold=0.1) == "#........."
    assert strip("first-block-cache", swing, threshold=0.1, longest=3) == "#...#...#."
    common = {"front": 1, "warmup": 1, "threshold": 0.1}
    assert strip("dbcache", swing, **common, most=4) == "#....#####"
    # Every other step has changed by 6 %: two of those are within the budget, and from then on every step is another swing away.
    assert strip("dbcache", swing, **common, budget=0.13) == "#....#####"


def test_a_mask_computes_and_a_warmup_does():
    still = [1.0] * 10
    assert strip("dbcache", still, front=1, warmup=3) == "###......."
    assert strip("dbcache", still, front=1, warmup=1, mask="#...#....#") == "#...#....#"
    with pytest.raises(OmniCacheError, match="option mask"):
        omnicache.methods()["dbcache"].plan(mask="1010")


def test_guidance_in_two_calls_decides_once_a_step():
    """Not as cache-dit and ParaAttention, whose calls decide apart: where one is reused and the other computed, guidance multiplies
    what the two differ by. See docs/decisions.md."""
    pipe = Pipe(dit(layers=4))
    with omnicache.cache(pipe, "first-block-cache", threshold=0.2) as run:
        pipe(guidance="calls")
    one, other = (run.trace.strip(b) for b in run.trace.branches())
    assert one == other
    assert "." in one


def test_a_forecast_goes_on_where_a_held_value_stays():
    pipe = Pipe(dit(layers=4))
    outs = []
    for order in (0, 1):
        with omnicache.cache(pipe, "dbcache", front=1, warmup=3, threshold=0.5, order=order):
            outs.append(pipe())
    assert not torch.equal(*outs)


def test_a_threshold_of_one_reuses_whatever_has_changed():
    """As cache-dit has it: limits and the mask still count."""
    wild = [1.0, 9.0, -7.0, 100.0, 1.0, 50.0]
    common = {"front": 1, "warmup": 1}
    assert strip("dbcache", wild, **common, threshold=0.99) == "######"
    assert strip("dbcache", wild, **common, threshold=1.0) == "#....."
    assert strip("dbcache", wild, **common, threshold=1.0, longest=2) == "#..#.."


@pytest.mark.parametrize(
    ("front", "back", "why"),
    [(4, 0, "and Chain has 4, so that none is left"), (2, 2, "layers between the first 2 and the last 2, and Chain has none")],
)
def test_blocks_that_leave_none_between_are_refused_in_a_sentence(front, back, why):
    """All of them would be computed at every step, which is exact and no use."""
    with pytest.raises(OmniCacheError, match=why):
        omnicache.enable(Chain(), "dbcache", front=front, back=back)
    with omnicache.cache(Chain(), "dbcache", front=front - 1, back=back):
        pass


def test_models_without_blocks_enough_are_refused():
    with pytest.raises(OmniCacheError, match=r"watches what 8 blocks do before the others run, and DiT.* has 3"):
        omnicache.enable(Pipe(dit(layers=3)), "dbcache")
    with pytest.raises(OmniCacheError, match=r"needs a stack of blocks, as transformers have, and UNet.* has none"):
        omnicache.enable(Pipe(text_unet()), "first-block-cache")
