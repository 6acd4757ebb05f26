"""What is kept: only what will be used, within the memory that is allowed, and foreseen."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.tiny import Always

import omnicache
from omnicache import Guards, OmniCacheError, Plan, Policy
from omnicache.granularity import MLP, Attention, Stack
from omnicache.guards import bytes_of
from omnicache.measure import footprint
from omnicache.predictors import Hold, Residual, Taylor
from omnicache.runtime.store import Lent
from omnicache.triggers import Every, First, Last, Table

from ..methods.tiny import Pipe, counted, dit, sd3, text_unet, unet

TAYLOR = Policy(First(3) | Every(4), Attention() | MLP(), Taylor(2))


def bytes_over_time(pipe: Pipe, run: Any, **call: Any) -> tuple[torch.Tensor, list[int]]:
    """What a run gives, and the bytes that are held after each call of the denoiser."""
    held: list[int] = []
    hook = pipe.model.register_forward_hook(lambda *_: None)
    plain = pipe.evaluate

    def evaluate(*args: Any) -> torch.Tensor:
        out = plain(*args)
        held.append(run.sessions[0].bytes())
        return out

    pipe.evaluate = evaluate  # type: ignore[method-assign]
    try:
        return pipe(**call), held
    finally:
        hook.remove()
        pipe.evaluate = plain  # type: ignore[method-assign]


# --- amounts of memory -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "count"), [("200 MB", 200_000_000), ("1.5 GiB", 1610612736), ("3kib", 3072), (77, 77), ("12", 12), ("0 B", 0)]
)
def test_amounts_of_memory(text, count):
    assert bytes_of(text) == count


@pytest.mark.parametrize("text", ["much", "-3 MB", "3 MX", "", "1,5 GB"])
def test_what_is_no_amount_is_refused(text):
    with pytest.raises(OmniCacheError, match="no amount of memory"):
        Guards(memory=text)


def test_guards_are_part_of_a_plan_and_its_file(tmp_path):
    plan = omnicache.enable(pipe := Pipe(dit()), "fora", guards=Guards(memory="1 MB")).plan
    omnicache.disable(pipe)
    assert Plan.load(plan.save(tmp_path / "plan.json")) == plan
    assert plan.guards.bytes == 1_000_000


# --- for how long ----------------------------------------------------------------------------------------------------------


def test_a_value_that_no_later_step_asks_for_is_not_kept():
    pipe = Pipe(dit())
    with omnicache.cache(pipe, Policy(Table("##.##.####"), Stack(), Hold())) as run:
        _, held = bytes_over_time(pipe, run)
    one = held[1]
    assert held == [0, one, 0, 0, one, 0, 0, 0, 0, 0]
    assert run.computed == "##.##.####"


def test_only_the_entries_that_an_estimate_takes_are_kept():
    pipe = Pipe(dit())
    with omnicache.cache(pipe, Policy(Table("######..##"), Stack(), Taylor(1))) as run:
        _, held = bytes_over_time(pipe, run)
    one = held[4]
    assert held == [0, 0, 0, 0, one, 2 * one, 2 * one, 0, 0, 0]


def test_a_trigger_that_watches_the_run_keeps_until_the_last_step():
    pipe = Pipe(dit())
    with omnicache.cache(pipe, Policy(Always(), Stack(), Hold())) as run:
        _, held = bytes_over_time(pipe, run)
    assert len({*held[:-1]}) == 1
    assert held[0] > held[-1] == 0


def test_a_step_that_is_computed_against_all_plans_keeps_its_value():
    """The batch grows at step 2, so that step is computed, and the ones after it reuse its value."""
    pipe = Pipe(dit())
    with omnicache.cache(pipe, Policy(Every(5), Stack(), Hold())) as run, counted(pipe.model) as calls, torch.no_grad():
        pipe.scheduler.set_timesteps(10)
        x = torch.randn(1, 4, 8, 8)
        for i, t in enumerate(pipe.scheduler.timesteps):
            x = torch.cat([x, x]) if i == 2 else x
            out = pipe.model(x, timestep=t.expand(len(x)), class_labels=torch.ones(len(x), dtype=torch.long)).sample
            x = pipe.scheduler.step(out[:, :4], t, x).prev_sample
    assert run.computed == "#.#....#.."
    assert calls["transformer_blocks.0"] == 3


def test_lent_values_are_let_go_with_their_entries():
    lent, x = Lent(), torch.zeros(3)
    lent.watch((x,))
    lent.forget()
    x.add_(1)
    assert not lent.spoiled()


# --- how much --------------------------------------------------------------------------------------------------------------

PREDICTED = {
    "fora": (dit, {}),
    "taylorseer": (dit, {}),
    "taylorseer stack": (sd3, {"granularity": "stack"}),
    "teacache": (dit, {"threshold": 0.2}),
    "toca": (dit, {}),
    "speca": (dit, {"threshold": 0.0}),
    "deepcache": (unet, {}),
}


@pytest.mark.parametrize("size", [8, 12, 16])
@pytest.mark.parametrize("guidance", ["batched", "calls"])
@pytest.mark.parametrize("name", PREDICTED)
def test_what_is_predicted_is_held(name, guidance, size):
    build, options = PREDICTED[name]
    pipe = Pipe(build())
    with omnicache.cache(pipe, name.split()[0], **options) as run:
        pipe(num_inference_steps=30, shape=(4, size, size), guidance=guidance)
    assert run.cache_bytes == pytest.approx(run.trace.predicted_bytes, rel=0.05)


def test_what_is_predicted_is_known_after_the_first_step():
    pipe = Pipe(dit())
    with omnicache.cache(pipe, TAYLOR) as run:
        pipe(num_inference_steps=20, stop=1)
        early, held = run.trace.predicted_bytes, run.cache_bytes
        pipe(num_inference_steps=20)
    assert run.cache_bytes == early > held


def bounded(limit: int, policy: Policy = TAYLOR, model: Any = None) -> tuple[torch.Tensor, Any, list[int]]:
    pipe = Pipe(model or dit())
    with omnicache.cache(pipe, policy, guards=Guards(memory=limit)) as run:
        out, held = bytes_over_time(pipe, run, num_inference_steps=20, guidance="calls")
    return out, run, held


def test_a_limit_that_is_met_changes_nothing():
    free, run, _ = bounded(10**9)
    again, tight, held = bounded(run.cache_bytes)
    assert torch.equal(free, again)
    assert max(held) == run.cache_bytes
    assert not tight.trace.thrift


def test_the_rungs_come_one_after_the_other():
    free, run, _ = bounded(10**9)
    whole = run.cache_bytes
    # One value is a third of the whole, and half precision halves all: so these are the sizes of the rungs.
    rungs = {
        whole - 1: "values are kept as bfloat16",
        whole // 2 - 1: "values are kept as bfloat16, predictors take 1 value fewer",
        whole // 3 - 1: "values are kept as bfloat16, predictors take 2 values fewer",
        whole // 6 - 1: "values are kept as bfloat16, predictors take 2 values fewer, 1 site is always computed",
    }
    for limit, said in rungs.items():
        out, run, held = bounded(limit)
        assert run.trace.thrift == f"To hold at most {run.trace.thrift.split('most ')[1].split(':')[0]}: {said}."
        assert 0.45 * limit < max(held) <= limit
        assert out.isfinite().all()
        assert not torch.equal(out, free)


def test_half_precision_keeps_the_picture_to_its_digits():
    free, run, _ = bounded(10**9, Policy(Every(2), Stack(), Residual(Hold())))
    half, tight, _ = bounded(run.cache_bytes - 1, Policy(Every(2), Stack(), Residual(Hold())))
    assert "bfloat16" in tight.trace.thrift
    assert half.dtype == free.dtype
    torch.testing.assert_close(half, free, rtol=0, atol=0.02 * float(free.abs().max()))


def test_the_sites_that_stay_are_those_that_save_most():
    """A feed-forward network has more parameters than an attention layer, and its output is as large."""
    _, run, _ = bounded(10**9)
    _, tight, _ = bounded(run.cache_bytes // 8)
    left = tight.sessions[0].runs.last.keeper.thrift.left
    assert left
    assert {site.kind for site in left} == {"attention"}


def test_sites_that_do_not_fit_are_computed_and_the_others_reused():
    pipe = Pipe(dit())
    _, free, _ = bounded(10**9)
    with omnicache.cache(pipe, TAYLOR, guards=Guards(memory=free.cache_bytes // 8)) as run, counted(pipe.model) as calls:
        pipe(num_inference_steps=20, guidance="calls")
    left = {site.name for site in run.sessions[0].runs.last.keeper.thrift.left}
    assert all(calls[name] == 40 for name in left)
    assert 0 < calls["transformer_blocks.0.ff"] < 40
    assert "o" in run.computed


def test_a_limit_that_holds_nothing_leaves_the_run_uncached_and_says_so():
    pipe = Pipe(dit())
    plain = pipe(num_inference_steps=20, guidance="calls")
    out, run, held = bounded(3)
    assert torch.equal(out, plain)
    assert set(held) == {0}
    assert "sites are always computed" in run.trace.thrift


def test_what_a_method_holds_besides_counts_too():
    """A watched input does not fit either: the rest of the run is computed."""
    pipe = Pipe(dit())
    plain = pipe(num_inference_steps=10)
    with (
        pytest.warns(UserWarning, match="does not fit into 3 B"),
        omnicache.cache(pipe, "teacache", guards=Guards(memory=3)) as run,
    ):
        assert torch.equal(pipe(num_inference_steps=10), plain)
    assert run.computed == "#" * 10
    assert "does not fit into 3 B" in str(run)


@pytest.mark.parametrize("build", [text_unet, unet])
def test_regions_of_u_nets_are_bounded_as_well(build):
    pipe = Pipe(build())
    with omnicache.cache(pipe, "deepcache", interval=3) as run:
        pipe(num_inference_steps=9)
    with omnicache.cache(pipe, "deepcache", interval=3, guards=Guards(memory=run.cache_bytes // 2)) as tight:
        pipe(num_inference_steps=9)
    assert tight.cache_bytes == run.cache_bytes // 2
    assert "." in tight.computed or "o" in tight.computed


def test_rows_that_are_refreshed_are_kept_in_the_same_form():
    pipe = Pipe(dit())
    with omnicache.cache(pipe, "toca") as run:
        pipe(num_inference_steps=10)
    with omnicache.cache(pipe, "toca", guards=Guards(memory=int(0.75 * run.cache_bytes))) as tight:
        pipe(num_inference_steps=10)
    assert "bfloat16" in tight.trace.thrift
    assert tight.cache_bytes <= 0.75 * run.cache_bytes
    assert tight.computed == run.computed


def test_a_footprint_is_what_a_run_holds():
    pipe = Pipe(dit())
    told = footprint(pipe, 1, "taylorseer", num_inference_steps=20, guidance="calls", order=2)
    plain = pipe(num_inference_steps=20, guidance="calls")
    with omnicache.cache(pipe, "taylorseer", order=2) as run:
        assert not torch.equal(pipe(num_inference_steps=20, guidance="calls"), plain)
    assert told.bytes == run.cache_bytes
    assert not told.thrift
    tight = footprint(pipe, 1, "taylorseer", Guards(memory=told.bytes - 1), num_inference_steps=20, guidance="calls", order=2)
    assert tight.bytes < told.bytes
    assert str(tight).endswith("values are kept as bfloat16.")


def test_a_footprint_needs_a_scheduler():
    with pytest.raises(OmniCacheError, match="no scheduler"):
        footprint(dit(), 1, "fora")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="the host's memory is a rung of its own only beside a device's")
def test_on_a_gpu_the_host_comes_after_half_precision():
    pipe = Pipe(dit().cuda())
    policy = Policy(Every(2), Stack(), Residual(Hold()))

    def draw(**more: Any) -> tuple[torch.Tensor, Any]:
        x, out = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)).cuda(), []
        pipe.scheduler.set_timesteps(10)
        with omnicache.cache(pipe, policy, **more) as run, torch.no_grad():
            for t in pipe.scheduler.timesteps:
                out.append(pipe.model(x, timestep=t.cuda()[None], class_labels=torch.ones(1, dtype=torch.long).cuda()).sample)
                pipe.scheduler.step(out[-1][:, :4], t, x)
        return out[-1], run

    free, run = draw()
    tight, bounded_run = draw(guards=Guards(memory=run.cache_bytes // 4))
    assert bounded_run.trace.thrift.endswith("values are kept as bfloat16, values are kept in the host's memory.")
    assert bounded_run.cache_bytes == 0
    torch.testing.assert_close(tight, free, rtol=0, atol=0.02 * float(free.abs().max()))


# --- when there is none left -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no"), MemoryError(), RuntimeError("can't allocate memory: 8 bytes")])
@pytest.mark.parametrize("step", [0, 3, 4])
def test_a_run_that_meets_the_end_of_memory_goes_on_without_a_cache(error, step, monkeypatch):
    pipe = Pipe(dit())
    plain = pipe(num_inference_steps=10)
    policy = Policy(First(2) | Every(3) | Last(), Stack(), Residual(Taylor(1)))
    with omnicache.cache(pipe, policy) as run:
        cached, _ = bytes_over_time(pipe, run, num_inference_steps=10)
        assert not torch.equal(cached, plain)
        missing = [True]

        def block(module: Any, args: Any) -> None:
            at = run.sessions[0].runs.newest()
            if missing and at is not None and at.at >= step:
                missing.clear()
                raise error

        hook = pipe.model.proj_out_2.register_forward_pre_hook(block)
        with pytest.warns(UserWarning, match="memory ran out"):
            out, held = bytes_over_time(pipe, run, num_inference_steps=10)
        hook.remove()
        assert set(held[step:]) == {0}
        assert set(run.computed[step:]) == {"#"}
        assert "memory ran out" in str(run)
        assert torch.equal(out, plain) == (step < 3)  # what was reused before is reused
        assert torch.equal(pipe(num_inference_steps=10), cached)


def test_other_errors_are_not_taken_for_it():
    pipe = Pipe(dit())
    with omnicache.cache(pipe, "fora") as run:
        hook = pipe.model.proj_out_2.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(RuntimeError("shape")))
        with pytest.raises(RuntimeError, match="shape"):
            pipe(num_inference_steps=10)
        hook.remove()
        assert run.sessions[0].bytes() == 0


def test_a_limit_below_one_value_is_given_as_the_reason():
    _, run, _ = bounded(1)
    assert "always computed" in str(run)
    assert "Nothing was reused, for want of memory. To hold at most 1 B: " in str(run)
