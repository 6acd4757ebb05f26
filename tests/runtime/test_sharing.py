"""Several pipelines around one denoiser, and what happens when one of them goes."""

import copy
import gc
import threading
import weakref

import pytest
import torch
from diffusers import HeunDiscreteScheduler

import omnicache
from omnicache.runtime.clock import Tap

from ..methods.tiny import Pipe, counted, ddim, dit


def pair():
    """Two pipelines around one model, with a solver each, and what each gives when it alone is cached."""
    a = Pipe(dit())
    b = Pipe(a.model, HeunDiscreteScheduler())
    expected = []
    for pipe in (a, b):
        with omnicache.cache(pipe, "fora", interval=3):
            expected.append(pipe())
    return a, b, expected


def test_a_pipeline_that_was_never_enabled_is_on_its_own_schedulers_clock():
    a, b, expected = pair()
    run = omnicache.enable(a, "fora", interval=3)
    for _ in range(2):
        assert torch.equal(b(), expected[1])
        assert {r.step.total for r in run.trace.records} == {19}
        assert torch.equal(a(), expected[0])
        assert {r.step.total for r in run.trace.records} == {10}


def test_a_bare_denoiser_is_on_the_clock_of_the_pipeline_that_calls_it():
    a, b, expected = pair()
    run = omnicache.enable(a.model, "fora", interval=3)
    assert torch.equal(b(), expected[1])
    assert torch.equal(a(), expected[0])
    assert run.computed == "#..#..#..#"
    assert run.sessions[0].bytes() == 0


def test_runs_of_two_pipelines_may_be_nested():
    a, b, expected = pair()
    omnicache.enable(a, "fora", interval=3)
    inner = []

    def halfway(i, *_):
        if i == 4:
            inner.append(b())

    plain_step = a.scheduler.step

    def step(*args, **kwargs):
        halfway(len(steps))
        steps.append(1)
        return plain_step(*args, **kwargs)

    steps: list[int] = []
    a.scheduler.step = step
    assert torch.equal(a(), expected[0])
    assert torch.equal(inner[0], expected[1])


def test_the_same_plan_may_be_enabled_on_both_and_disabled_on_one():
    a, b, expected = pair()
    omnicache.disable(a)
    plain = [p() for p in (a, b)]
    omnicache.enable(a, "fora", interval=3)
    omnicache.enable(b, "fora", interval=3)
    with pytest.raises(omnicache.OmniCacheError, match="one denoiser has one plan at a time"):
        omnicache.enable(Pipe(a.model), "taylorseer")
    omnicache.disable(a)
    assert torch.equal(a(), plain[0]), "the one that was disabled is as it was"
    assert torch.equal(b(), expected[1]), "the other is still cached"
    assert not isinstance(a.scheduler.step, Tap)
    omnicache.enable(a, "fora", interval=3)
    assert torch.equal(a(), expected[0])
    omnicache.disable(a)
    omnicache.disable(b)
    assert [torch.equal(p(), x) for p, x in zip((a, b), plain, strict=True)] == [True, True]
    assert "_compiled_call_impl" not in vars(a.model)


def test_a_denoiser_that_is_replaced_inside_the_block_leaves_nothing_behind():
    pipe = Pipe(dit())
    old, new = pipe.model, dit(seed=1)
    with omnicache.cache(pipe, "fora"):
        pipe.transformer = new
        with pytest.warns(UserWarning, match="was replaced after it was enabled"):
            pipe()
    assert not any("_compiled_call_impl" in vars(m) for m in old.modules())
    assert not isinstance(pipe.scheduler.step, Tap)


def test_a_pipeline_that_is_forgotten_while_enabled_is_freed():
    pipe = Pipe(dit())
    omnicache.enable(pipe, "fora")
    pipe()
    gone = [weakref.ref(pipe.model), weakref.ref(pipe.scheduler)]
    del pipe
    gc.collect()
    assert [r() for r in gone] == [None, None]


def test_a_users_own_step_is_put_back():
    pipe = Pipe(dit())
    plain = pipe.scheduler.step

    def mine(*args, **kwargs):
        return plain(*args, **kwargs)

    pipe.scheduler.step = mine
    with omnicache.cache(pipe, "fora"):
        pipe()
    assert vars(pipe.scheduler)["step"] is mine


@pytest.mark.parametrize("method", ["fora", "taylorseer", "teacache"])
def test_many_threads_over_one_set_of_weights(method):
    model = dit()
    pipes = [Pipe(model, ddim()) for _ in range(8)]
    with omnicache.cache(pipes[0], method):
        alone = [pipe(generator=torch.Generator().manual_seed(i)) for i, pipe in enumerate(pipes)]
        again: list[list[torch.Tensor]] = [[] for _ in pipes]

        def work(i: int) -> None:
            for _ in range(4):
                again[i].append(pipes[i](generator=torch.Generator().manual_seed(i)))

        threads = [threading.Thread(target=work, args=(i,)) for i in range(len(pipes))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for wanted, found in zip(alone, again, strict=True):
        assert len(found) == 4
        assert all(torch.equal(wanted, x) for x in found)


class Copies(Pipe):
    """Steps a copy of its scheduler, as pipelines do that keep one for each frame of a video."""

    def __call__(self, label: int = 1, num_inference_steps: int = 10) -> torch.Tensor:  # type: ignore[override]
        self.scheduler.set_timesteps(num_inference_steps)
        mine = copy.deepcopy(self.scheduler)
        x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(label))
        conditions = self.conditions(torch.tensor([label]))
        with torch.no_grad():
            for t in mine.timesteps:
                x = mine.step(self.evaluate(x, t, conditions), t, x).prev_sample
        return x


def test_a_pipeline_that_steps_copies_of_its_scheduler_is_timed_by_its_timesteps():
    pipe = Copies(dit())
    with omnicache.cache(pipe, "fora", interval=3) as run, counted(pipe.model) as calls:
        pipe()
        first = calls["transformer_blocks.0.ff"]
        pipe()
    assert first == calls["transformer_blocks.0.ff"] - first == 4  # the first step, and every third from the second on
    assert run.computed == "#..#..#.."
