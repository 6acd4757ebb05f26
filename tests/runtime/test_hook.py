"""The only place that touches a module's call: it leaves alone what users do with modules, and goes away without a trace."""

import copy
import inspect
import io
import threading

import pytest
import torch
from torch import nn

import omnicache
from omnicache.errors import OmniCacheError
from omnicache.runtime.hook import SLOT, Hook, is_compiled

from ..methods.tiny import Pipe, counted, dit, sd3, text_unet


def adding(extra):
    return lambda call, args, kwargs: call(*args, **kwargs) + extra


def ours(model: nn.Module) -> list[str]:
    """Modules with something in the slot."""
    return [name for name, m in model.named_modules() if m.__dict__.get(SLOT) is not None]


def reloaded(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


# --- one hook


def test_it_wraps_the_call_and_goes_away():
    module, x = nn.Linear(2, 2), torch.ones(1, 2)
    plain = module(x)
    hook = Hook(module, adding(1.0))
    assert torch.equal(module(x), plain + 1)
    assert hook.in_place
    hook.remove()
    assert torch.equal(module(x), plain)
    assert SLOT not in vars(module)
    hook.remove()  # twice is no harm


def test_hooks_nest_and_come_off_in_either_order():
    module, x = nn.Linear(2, 2), torch.zeros(1, 2)
    plain = module(x)
    for inner_first in (False, True):
        inner = Hook(module, adding(1.0))
        outer = Hook(module, lambda call, args, kwargs: call(*args, **kwargs) * 10)
        torch.testing.assert_close(module(x), (plain + 1) * 10)
        assert inner.in_place
        assert outer.in_place
        if inner_first:
            inner.remove()
            torch.testing.assert_close(module(x), plain * 10)
        outer.remove()
        inner.remove()
        torch.testing.assert_close(module(x), plain)
        vars(module).pop(SLOT, None)


def test_the_modules_own_hooks_run_inside():
    module, seen = nn.Linear(2, 2), []
    module.register_forward_pre_hook(lambda *_: seen.append("before"))
    module.register_forward_hook(lambda *_: seen.append("after"))
    hook = Hook(module, lambda call, args, kwargs: torch.zeros(1, 2))
    module(torch.ones(1, 2))
    assert seen == []  # an estimate in place of the call: nothing of it happened
    hook.remove()
    module(torch.ones(1, 2))
    assert seen == ["before", "after"]


def test_an_exception_inside_comes_out_and_leaves_the_hook():
    module = nn.Linear(2, 2)
    hook = Hook(module, adding(1.0))
    with pytest.raises(RuntimeError):
        module(torch.ones(1, 3))
    assert torch.equal(module(torch.ones(1, 2)), module.forward(torch.ones(1, 2)) + 1)
    hook.remove()


def test_another_torch_is_refused_in_words(monkeypatch):
    monkeypatch.setattr("omnicache.runtime.hook.SLOT", "_no_such_slot")
    with pytest.raises(OmniCacheError, match=r"no Module\._no_such_slot; OmniCache supports torch"):
        Hook(nn.Linear(2, 2), adding(1.0))


# --- an enabled model


@pytest.mark.parametrize("build", [dit, sd3, text_unet])
@pytest.mark.parametrize("copied", [copy.deepcopy, reloaded])
def test_a_copy_or_a_saved_model_is_plain_and_has_weights_of_its_own(build, copied):
    pipe = Pipe(build())
    method = "deepcache" if build is text_unet else "taylorseer"
    plain = pipe()
    with omnicache.cache(pipe, method):
        cached = pipe()
        twin = copied(pipe.model)
        assert ours(twin) == []
        other = Pipe(twin, conditions=pipe.conditions)
        assert torch.equal(other(), plain)
        with torch.no_grad():
            next(twin.parameters()).zero_()
        assert torch.equal(pipe(), cached)
        assert not torch.equal(other(), plain)  # the copy runs the copy's weights
        with omnicache.cache(other, method) as run:
            other()
        assert "." in run.computed
    assert torch.equal(pipe(), plain)


def test_nothing_of_forward_state_dict_or_class_changes():
    model = sd3()
    pipe = Pipe(model)

    def look():
        modules = dict(model.named_modules())
        return (
            {n: (m.forward.__func__, inspect.signature(m.forward), type(m)) for n, m in modules.items()},
            list(model.state_dict()),
            {n: set(vars(m)) - {SLOT, "cache_context"} for n, m in modules.items()},
            repr(model),
        )

    before, classes = look(), {type(m): dict(vars(type(m))) for m in model.modules()}
    with omnicache.cache(pipe, "speca"):
        pipe()
        assert look() == before
        for kind, attributes in classes.items():
            assert dict(vars(kind)) == attributes
    assert look() == before
    assert ours(model) == []
    assert "cache_context" not in vars(model)


def test_other_instances_of_the_class_are_not_touched():
    mine, other = Pipe(dit()), Pipe(dit())
    with omnicache.cache(mine, "fora"):
        assert ours(other.model) == []
        with counted(other.model) as calls:
            other()
        assert calls["transformer_blocks.1.attn1"] == 10


def test_the_handler_is_removed_after_an_exception_in_the_middle():
    pipe = Pipe(dit())
    plain, steps = pipe(), []

    def fail(*_):
        steps.append(1)
        if len(steps) == 5:
            raise ZeroDivisionError

    hook = pipe.model.register_forward_pre_hook(fail)
    with omnicache.cache(pipe, "fora") as run:
        with pytest.raises(ZeroDivisionError):
            pipe()
        assert run.sessions[0].bytes() == 0  # the run is over, and what it kept is gone
    hook.remove()
    assert torch.equal(pipe(), plain)
    assert ours(pipe.model) == []


def test_enabling_that_fails_halfway_leaves_nothing(monkeypatch):
    pipe = Pipe(dit())
    made = []

    def breaking(self, module, handler, plain=Hook.__init__):
        made.append(module)
        if len(made) == 4:
            raise ZeroDivisionError
        plain(self, module, handler)

    monkeypatch.setattr(Hook, "__init__", breaking)
    with pytest.raises(ZeroDivisionError):
        omnicache.enable(pipe, "fora")
    monkeypatch.undo()
    assert ours(pipe.model) == []
    assert not {"step", "set_timesteps"} & set(vars(pipe.scheduler))
    with omnicache.cache(pipe, "fora") as run:
        pipe()
    assert run.computed == "#..#..#..#"


def test_cached_values_are_the_same_from_a_thread_that_did_not_enable():
    pipe, outs = Pipe(dit()), []
    with omnicache.cache(pipe, "fora"):
        here = pipe()
        thread = threading.Thread(target=lambda: outs.append(pipe()))
        thread.start()
        thread.join()
    assert torch.equal(outs[0], here)


# --- compiled blocks


@pytest.fixture(autouse=True)
def _fresh_compiler():
    yield
    torch._dynamo.reset()


def compile_blocks(model):
    for block in model.transformer_blocks:
        block.compile(backend="eager")


def test_blocks_compiled_before_enabling():
    pipe = Pipe(dit(layers=2))
    plain = pipe()
    with omnicache.cache(pipe, "fora", granularity="stack"):
        cached = pipe()
    compile_blocks(pipe.model)
    graphs = [vars(b)[SLOT] for b in pipe.model.transformer_blocks]
    with omnicache.cache(pipe, "fora", granularity="stack") as run:
        torch.testing.assert_close(pipe(), cached)
        assert run.computed == "#..#..#..#"
    assert [vars(b)[SLOT] for b in pipe.model.transformer_blocks] == graphs
    torch.testing.assert_close(pipe(), plain)


def test_blocks_compiled_after_enabling_are_cached_from_the_next_run_on():
    pipe = Pipe(dit(layers=2))
    plain = pipe()
    with omnicache.cache(pipe, "fora", granularity="stack") as run:
        cached = pipe()
        compile_blocks(pipe.model)
        graphs = [vars(b)[SLOT] for b in pipe.model.transformer_blocks]
        torch.testing.assert_close(pipe(), cached)
        assert run.computed == "#..#..#..#"
        torch.testing.assert_close(pipe(), cached)
    assert [vars(b)[SLOT] for b in pipe.model.transformer_blocks] == graphs  # the compiled call stays, the hook is gone
    torch.testing.assert_close(pipe(), plain)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("fora", {"granularity": "stack"}),
        ("taylorseer", {}),
        ("teacache", {"threshold": 1e9}),
        ("omnicache-trajectory", {"schedule": "#.#..#..#.", "gamma": (None, 0.5, None, 0.5, 0.5, None, 0.5, 0.5, None, 0.5)}),
    ],
)
def test_methods_that_reuse_whole_blocks_keep_one_graph_a_block(method, options):
    def graphs(cached):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        pipe = Pipe(dit(layers=3))
        for block in pipe.model.transformer_blocks:
            block.compile(fullgraph=True, backend="eager")
        if not cached:
            pipe()
        else:
            with omnicache.cache(pipe, method, **options) as run:
                pipe()
                pipe()
            assert "." in run.computed
        return torch._dynamo.utils.counters["stats"]["unique_graphs"]

    assert graphs(True) == graphs(False) > 0


def test_a_reused_compiled_block_does_not_run():
    pipe, calls = Pipe(dit(layers=2)), []

    def backend(graph, inputs):
        return lambda *args: (calls.append(1), graph(*args))[1]

    for block in pipe.model.transformer_blocks:
        block.compile(backend=backend)
    with omnicache.cache(pipe, "fora", granularity="stack") as run:
        pipe()
        per_block = len(calls) / (2 * run.computed.count("#"))
        assert per_block == int(per_block)
        assert per_block > 0
    del calls[:]
    pipe()
    assert len(calls) == 2 * 10 * per_block


@pytest.mark.parametrize("method", ["fora", "toca", "speca"])
def test_methods_that_look_inside_blocks_refuse_compiled_ones(method):
    """Inside a compiled block nothing of ours would run: every step would be computed without a word."""
    pipe = Pipe(dit(layers=2))
    pipe.model.transformer_blocks[1].compile(backend="eager")
    with pytest.raises(OmniCacheError, match=rf"{method} caches inside transformer_blocks\.1, which is compiled"):
        omnicache.enable(pipe, method)
    assert ours(pipe.model) == ["transformer_blocks.1"]
    assert not {"step", "set_timesteps"} & set(vars(pipe.scheduler))
    pipe.model.transformer_blocks[1] = torch.compile(dit(layers=1).transformer_blocks[0], backend="eager")
    with pytest.raises(OmniCacheError, match="which is compiled"):
        omnicache.enable(pipe, method)


def test_blocks_compiled_under_a_method_that_looks_inside_are_said():
    pipe = Pipe(dit(layers=2))
    plain = pipe()
    with omnicache.cache(pipe, "fora") as run:
        pipe.model.transformer_blocks[0].compile(backend="eager")
        with pytest.warns(UserWarning, match=r"fora caches inside transformer_blocks\.0, which is compiled"):
            pipe()
        assert "which is compiled" in str(run)
    torch.testing.assert_close(pipe(), plain)


def test_a_model_compiled_as_a_whole_is_refused():
    for compiled in (lambda m: torch.compile(m, backend="eager"), lambda m: (m.compile(backend="eager"), m)[1]):
        model = compiled(dit(layers=2))
        assert is_compiled(model)
        with pytest.raises(OmniCacheError, match=r"compiled as a whole.*block\.compile\(\)"):
            omnicache.enable(model, "fora")
    assert not is_compiled(dit(layers=2))


def test_a_model_compiled_as_a_whole_after_enabling_is_said():
    pipe = Pipe(dit(layers=2))
    plain = pipe()
    with omnicache.cache(pipe, "fora") as run:
        pipe.model.compile(backend="eager")
        with pytest.warns(UserWarning, match="compiled as a whole after it was enabled"):
            torch.testing.assert_close(pipe(), plain)
        assert "compiled as a whole after it was enabled" in str(run)
        pipe()  # said once
        assert len(run.sessions[0].notes) == 1
    torch.testing.assert_close(pipe(), plain)
