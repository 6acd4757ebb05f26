"""What must not happen without a word: work reused for the wrong thing, and nothing reused at all."""

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import nn

import omnicache
from omnicache.granularity import Stack
from omnicache.policy import Policy
from omnicache.predictors import Hold, Residual
from omnicache.triggers import Every, First, Table

from ..methods.tiny import Pipe, counted, dit

STACK = Policy(First(1) | Every(3), Stack(), Residual(Hold()))


class Loop(nn.Module):
    """A row of blocks between two halves of a model; ``keeps`` says what else of theirs is read."""

    def __init__(self, keeps: str = "nothing", cycles: int = 1):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(4))
        self.keeps, self.cycles = keeps, cycles

    def forward(self, x, timestep):
        kept = []
        for _ in range(self.cycles):
            for block in self.blocks:
                x = x + 0.0 * timestep.sum()
                x = block(x)
                kept.append(x)
        if self.keeps == "the first":
            x = x + kept[0]
        return x


class Unbroken(Loop):
    """The same with nothing between the blocks."""

    def forward(self, x, timestep):
        kept = []
        for _ in range(self.cycles):
            for block in self.blocks:
                x = block(x)
                kept.append(x)
            if self.cycles > 1:
                x = 2.0 * x
        return x + kept[1] if self.keeps == "the second" else x


@torch.no_grad()
def runs(model, times):
    """The model on one and the same input at falling times."""
    x = torch.ones(1, 3, 4)
    return [model(x, torch.tensor([float(t)])) for t in times]


@pytest.mark.parametrize("keeps", ["nothing", "the second"])
def test_a_value_inside_the_row_that_is_read_elsewhere_is_noticed_at_the_first_reuse(keeps):
    model = Unbroken(keeps).eval()
    plain = runs(model, range(9, 0, -1))
    with omnicache.cache(model, STACK) as run, counted(model) as calls:
        cached = runs(model, range(9, 0, -1))
    torch.testing.assert_close(cached, plain)
    found = any("is read outside of it" in n for n in run.trace.notes)
    assert found == (keeps == "the second")
    assert calls["blocks.0"] == (3 if keeps == "nothing" else 4), "the step of a failed proof is computed"


def test_a_model_that_gives_nan_by_itself_proves_nothing():
    model = Unbroken().eval()
    with omnicache.cache(model, STACK) as run, torch.no_grad():
        for t in (9.0, 8.0, 7.0):
            model(torch.full((1, 3, 4), torch.nan), torch.tensor([t]))
        assert not run.sessions[0].distrusted
        assert not run.sessions[0].proven


def test_blocks_that_run_twice_in_a_pass_have_two_values():
    model = Unbroken(cycles=2).eval()
    plain = runs(model, range(9, 0, -1))
    with omnicache.cache(model, STACK) as run:
        cached = runs(model, range(9, 0, -1))
    torch.testing.assert_close(cached, plain)
    assert run.computed == "#..#..#.."


def test_a_feed_forward_in_chunks_is_called_several_times():
    pipe = Pipe(dit())
    for block in pipe.model.transformer_blocks:
        block.set_chunk_feed_forward(8, 1)
    kept = {}
    t = torch.tensor([500])
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), omnicache.cache(pipe, "fora", interval=3):
        pipe.scheduler.set_timesteps(4)
        for i in range(3):
            kept[i] = pipe.model(x, timestep=t, class_labels=torch.tensor([1])).sample
            pipe.scheduler.step(torch.zeros_like(x), pipe.scheduler.timesteps[i], x)
    torch.testing.assert_close(kept[1], kept[0])
    torch.testing.assert_close(kept[2], kept[0])


def test_calls_of_one_step_that_share_a_condition_are_branches_of_their_own():
    pipe = Pipe(dit())
    label = torch.tensor([1])
    seen = {}
    with torch.no_grad(), omnicache.cache(pipe, "fora", interval=3) as run:
        pipe.scheduler.set_timesteps(6)
        for i, t in enumerate(pipe.scheduler.timesteps):
            for tile in range(3):
                x = torch.full((1, 4, 8, 8), float(tile))
                seen[i, tile] = pipe.model(x, timestep=t.expand(1), class_labels=label).sample
            pipe.scheduler.step(torch.zeros_like(x), t, x)
    assert run.trace.branches() == [0, 1, 2]
    assert {len(run.trace.strip(b)) for b in (0, 1, 2)} == {6}
    assert not torch.equal(seen[1, 0], seen[1, 1])


def test_tiles_in_a_bare_loop_are_branches_too():
    model = Unbroken().eval()
    with torch.no_grad(), omnicache.cache(model, STACK) as run:
        for t in (9.0, 8.0, 7.0):
            tiles = [model(torch.full((1, 3, 4), float(i)), torch.tensor([t])) for i in range(2)]
            assert not torch.equal(*tiles)
    assert [(r.step.index, r.step.branch) for r in run.trace.records] == [(i, b) for i in range(3) for b in (0, 1)]


def test_a_bare_model_whose_time_is_not_recognised_is_not_cached():
    class Other(Unbroken):
        def forward(self, x, noise_level):
            return super().forward(x, noise_level)

    model = Other().eval()
    with torch.no_grad(), omnicache.cache(model, STACK) as run:
        with pytest.warns(UserWarning, match="no argument of the model was recognised as its timestep"):
            model(torch.ones(1, 3, 4), torch.tensor([4.0]))
        for n in range(3):
            model(torch.ones(1, 3, 4), torch.tensor([float(n)]))
    assert run.computed == "####"


def test_image_to_image_in_half_precision_stays_on_the_clock():
    pipe = Pipe(dit().to(torch.bfloat16), FlowMatchEulerDiscreteScheduler())
    plain_evaluate = pipe.evaluate
    pipe.evaluate = lambda x, t, c: plain_evaluate(x, t.to(torch.bfloat16), c)
    with omnicache.cache(pipe, "fora", interval=3) as run:
        pipe(num_inference_steps=20, start=8, dtype=torch.bfloat16)
    assert {r.step.total for r in run.trace.records} == {12}
    assert run.computed == "#.#..#..#..#"
    assert run.sessions[0].bytes() == 0


def test_the_second_expert_is_checked_for_its_length_too():
    pipe = Pipe(dit())
    pipe.transformer_2 = dit(seed=1)

    def by_expert(x, t, conditions):
        model = pipe.transformer if t >= 500 else pipe.transformer_2
        return model(x, timestep=t.expand(x.shape[0]), **conditions).sample

    pipe.evaluate = by_expert
    pipe.components = {"transformer": pipe.transformer, "transformer_2": pipe.transformer_2}
    with pytest.warns(UserWarning, match="4 steps are too few"), omnicache.cache(pipe, "taylorseer") as run:
        pipe(num_inference_steps=4)
    assert [s.trace.computed for s in run.sessions] == ["##", "##"]
    assert all(any("too few" in n for n in s.trace.notes) for s in run.sessions)


def test_a_run_that_reuses_nothing_says_why():
    pipe = Pipe(dit())
    with omnicache.cache(pipe, "teacache", threshold=0.0) as run:
        pipe()
    assert run.trace.notes == ["Nothing was reused: the plan computed every step."]


def test_a_schedulers_times_may_be_a_list():
    class Listed:
        def set_timesteps(self, n):
            self.timesteps, self.sigmas = [torch.tensor(900 - 10 * i) for i in range(n)], None

        def step(self, out, t, x):
            return type("Out", (), {"prev_sample": x - 0.01 * out[:, :4]})()

    pipe = Pipe(dit(), Listed())
    with omnicache.cache(pipe, "fora", interval=3) as run:
        pipe()
    assert run.computed == "#..#..#..#"


def test_what_is_kept_does_not_hold_the_graph_of_old_steps():
    pipe = Pipe(dit())
    for p in pipe.model.parameters():
        p.requires_grad_(True)
    with omnicache.cache(pipe, "taylorseer", interval=2, warmup=1) as run:
        pipe.scheduler.set_timesteps(6)
        for t in pipe.scheduler.timesteps[:3]:
            x = torch.ones(1, 4, 8, 8)
            pipe.model(x, timestep=t.expand(1), class_labels=torch.tensor([1])).sample.sum().backward()
            pipe.scheduler.step(torch.zeros_like(x), t, x)
        (current,) = run.sessions[0].runs
        kept = [entry for branch in current.branches.values() for cell in branch.all_cells() for entry in cell.history]
    assert kept
    assert not any(t.requires_grad for e in kept for t in e.tensors)


def test_a_plan_says_that_it_was_calibrated_elsewhere():
    pipe = Pipe(dit())
    plan = omnicache.plan.Plan(
        "mine", (Policy(Table("#.#.#.#.#."), Stack(), Residual(Hold())),), made_for={"guidance": "none", "start": 2}
    )
    with pytest.warns(UserWarning, match="calibrated with start=2, and this run has 0"), omnicache.cache(pipe, plan) as run:
        pipe()
    assert any("start=2" in n for n in run.trace.notes)


def test_attention_that_keeps_its_maps_for_the_pipeline_is_never_skipped():
    class Store:
        def __init__(self):
            self.maps = []

        def __call__(self, found):
            self.maps.append(found)

    class Keeps:
        def __init__(self, plain, store):
            self.plain, self.store = plain, store

        def __call__(self, *args, **kwargs):
            self.store(1)
            return self.plain(*args, **kwargs)

    pipe, store = Pipe(dit()), Store()
    first = pipe.model.transformer_blocks[0].attn1
    plain = first.processor
    with omnicache.cache(pipe, "fora", interval=3) as run:
        pipe()
        assert not run.trace.notes
        first.processor = Keeps(plain, store)
        with pytest.warns(UserWarning, match="1 sites are always computed: their Keeps keeps things"), counted(pipe.model) as calls:
            pipe()
        assert len(store.maps) == calls["transformer_blocks.0.attn1"] == 10
        assert calls["transformer_blocks.1.attn1"] == 4
        first.processor = plain
        pipe()
        assert run.computed == "#..#..#..#"


def test_the_parts_of_a_combined_pipelines_prior_are_found():
    from omnicache.integrations.pipelines import denoisers

    class Combined:
        def __init__(self):
            self.components = {"prior_prior": dit(), "unet": dit(seed=1), "prior_text_encoder": nn.Linear(1, 1), "vae": None}

    found = Combined()
    assert denoisers(found) == [found.components["prior_prior"], found.components["unet"]]


def test_a_warning_points_to_the_users_own_line():
    pipe = Pipe(dit())
    with omnicache.cache(pipe, "taylorseer"), pytest.warns(UserWarning, match="too few") as told:
        pipe(num_inference_steps=3)
    assert told[0].filename.endswith("tiny.py"), "the loop that calls the denoiser"
