"""What ``print(run)`` says to who wonders: every sentence is provoked by a run, and where it names a better setting, that helps."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import statistics
import threading
import time

import pytest

import omnicache
from omnicache import Guards, Policy
from omnicache.asked import Asked, named
from omnicache.errors import nearest
from omnicache.explain import not_faster, why
from omnicache.granularity import Stack
from omnicache.guards import limit_for
from omnicache.predictors import Hold, Residual
from omnicache.runtime.step import Step
from omnicache.runtime.trace import Record, Trace
from omnicache.triggers import Every
from omnicache.triggers._crossed import above

from .methods.tiny import Pipe, dit


def said(method, steps=20, model=None, guards=None, **options):
    """What is printed of a run, and the run."""
    pipe = Pipe(model or dit())
    with omnicache.cache(pipe, method, guards=guards, **options) as run:
        pipe(num_inference_steps=steps)
    return str(run), run


def tried(text):
    """The option and the value that a sentence proposes."""
    name, number = re.search(r"try (\w+)=([\d.e-]*\d)", text).groups()
    return {name: float(number)}


def test_a_threshold_that_is_always_reached_is_told_with_one_that_is_not():
    text, run = said("teacache", threshold=1e-6)
    assert set(run.computed) == {"#"}
    assert "ModulatedInputChange reached the threshold 1e-06 at all 19 steps where it was known" in text
    _, better = said("teacache", **tried(text))
    assert better.computed.count(".") >= 5


def test_a_threshold_that_is_often_reached():
    text, run = said("first-block-cache", threshold=1e-6)
    middle = sorted(float(r.signals[s].max()) for r in run.trace.records[1:] for s in r.signals)[8]
    text, run = said("first-block-cache", threshold=middle)
    assert 0.5 < run.computed.count("#") / 20 < 1
    assert f"20 steps were computed. ProbeChange alone reached the threshold {middle:g} at" in text
    assert said("first-block-cache", **tried(text))[1].computed.count("#") < run.computed.count("#")


def test_a_warm_up_that_is_most_of_the_run():
    text, _ = said("taylorseer", steps=12, warmup=8)
    assert "8 of 12 steps are the first ones, which are always computed: try warmup=2 or take more steps." in text
    assert "are the first ones" not in said("taylorseer", steps=50, warmup=8)[0]


def test_drafts_that_stray():
    text, run = said("speca", threshold=1e-9, floor=1e-9, redo=True)
    assert run.computed.count("#") > 10
    assert re.search(r"(\d+) of \1 checked drafts strayed: the median one by [\d.e-]+, where 1e-09 was allowed", text)
    assert said("speca", **{"threshold": 1e-9, "floor": 1e-9, "redo": True, **tried(text)})[1].computed.count(
        "#"
    ) < run.computed.count("#")


def slow_norms(model):
    """Most of the time is spent where ``fora`` reuses nothing."""
    for block in model.transformer_blocks:
        block.norm3.register_forward_pre_hook(lambda *_: time.sleep(0.004))
    return model


def test_a_reuse_that_costs_most_of_a_step_is_told_in_numbers():
    text, run = said("fora", model=slow_norms(dit()))
    assert run.trace.speedup < 2
    found = re.search(r"8 of 20 evaluations were computed, which would be 2.50 times as fast .* a reused one takes (\d+) %", text)
    each = run.trace.seconds_each
    assert int(found[1]) == round(100 * each["."] / each["#"]) > 40
    assert 'it fills in 6 modules. Try granularity="stack"' in text
    text, better = said("fora", model=slow_norms(dit()), granularity="stack")
    assert better.trace.speedup > run.trace.speedup
    assert "takes" not in text


def test_what_memory_has_cost_is_told():
    _, free = said("taylorseer", granularity="module", order=2)
    text, run = said("taylorseer", granularity="module", order=2, guards=Guards(memory="6 KB"))
    assert run.cache_bytes <= 6000
    assert "To hold at most 6 KB: " in text and f"All of it would be {free.cache_bytes / 1024:.1f} KiB." in text


def test_a_limit_that_leaves_room_for_nothing_is_named_with_one_that_has():
    text, run = said("taylorseer", steps=12, granularity="module", guards=Guards(memory=500))
    assert set(run.computed) == {"#"} and "first ones" not in text
    assert text.splitlines()[3].startswith("  Nothing was reused, for want of memory. To hold at most 500 B: ")
    memory = re.search(r'has room with guards=Guards\(memory="(.*)"\)', text)[1]
    text, better = said("taylorseer", steps=12, granularity="module", guards=Guards(memory=memory))
    assert better.computed == "###....#...." and "To hold" not in text


def test_a_limit_without_a_unit_is_told_with_one():
    for limit in (2, "2", " 2 "):
        assert str(Guards(memory=limit)) == "2 B"
    assert str(Guards(memory="6 KB")) == "6 KB"
    assert [limit_for(n) for n in (7, 1024, 1025, 3 << 20)] == ["7 B", "1.0 KiB", "1.1 KiB", "3.0 MiB"]


@pytest.mark.parametrize("method", ["taylorseer", "fora"])
def test_an_interval_of_one_is_named(method):
    text, _ = said(method, steps=12, interval=1)
    reasons = "Nothing was reused: the plan computed every step.", "At an interval of 1 every step is computed: try interval=2."
    assert text.splitlines()[3:] == [f"  {reason}" for reason in reasons]
    assert "." in said(method, steps=12, **{k: int(v) for k, v in tried(text).items()})[1].computed


def test_what_an_output_is_expected_to_change_by_is_named_and_not_the_warm_up():
    text, run = said("easycache", steps=12, threshold=1e-7)
    assert set(run.computed) == {"#"} and "first ones" not in text
    assert "The expected change of the output reached the threshold 1e-07 at all 10 steps where it was known" in text
    assert "." in said("easycache", steps=12, **tried(text))[1].computed


def test_a_drift_that_is_always_too_large_is_named():
    ratios = (1.0, *[0.8] * 11)
    text, _ = said("magcache", steps=12, ratios=ratios, threshold=0.01, longest=3)
    assert "The calibrated drift reached the threshold 0.01 at all 11 steps" in text and "first ones" not in text
    assert "." in said("magcache", steps=12, ratios=ratios, longest=3, **tried(text))[1].computed


def test_a_run_that_is_too_short_is_not_blamed_on_its_warm_up():
    text, _ = said("taylorseer", steps=4)
    assert "4 steps are too few for caching" in text and "try" not in text


def test_a_warm_up_that_is_the_least_of_it_is_not_named():
    class Always(Every):
        def why(self, seen):
            return ()

    when = omnicache.methods()["taylorseer"].plan(warmup=3).policies[0].when.a | Always(1)
    text, run = said(Policy(when, Stack(), Residual(Hold())), steps=12)
    assert set(run.computed) == {"#"} and "first ones" not in text


@pytest.mark.parametrize("method", ["none", "fewer-steps", "taylorseer"])
def test_where_nothing_was_reused_nothing_was_saved(method):
    text, _ = said(method, steps=12, **({"interval": 1} if method == "taylorseer" else {}))
    assert "  nothing saved by reuse; at most 0 B kept" in text and "times as fast" not in text


def timed(marks, seconds):
    """A trace of such evaluations."""
    trace = Trace("a")
    parts = {"#": {"computed": 6}, ".": {"reused": 6}, "o": {"computed": 5, "partial": 1}}
    for i, (mark, took) in enumerate(zip(marks, seconds, strict=True)):
        trace.add(Record(Step(i, len(marks)), **parts[mark]), took, True)
    return trace


def test_the_kind_of_evaluation_that_takes_most_time_is_named_and_not_the_most_frequent_one():
    trace, plan = timed("#o.o...o....", [{"#": 0.1, "o": 0.08, ".": 0.001}[mark] for mark in "#o.o...o...."]), plan_of_steps()
    assert "one computed in part takes 80 % of the time of a computed one: it runs 6 modules" in " ".join(why(trace, plan))


def test_times_are_told_in_units_that_show_them():
    trace = timed("#..........#", [0.1, *[0.0009] * 9, 0.06, 0.1])
    assert "Number 11 took 60 ms, where 0.9 ms is the median." in " ".join(why(trace, plan_of_steps()))


def plan_of_steps():
    return omnicache.methods()["fora"].plan(granularity="stack")


def test_the_longest_stretch_is_where_to_look():
    text, run = said("taylorseer", interval=7)
    assert run.computed == "###......#......#..."
    assert "The longest stretch without computing is 6 steps, 4 to 9;" in text
    assert "longest" not in said("fora", interval=2)[0]


def test_a_run_that_caches_nothing_and_one_that_has_not_begun_explain_nothing():
    assert "try" not in said("none")[0]
    with omnicache.cache(Pipe(dit()), "fora") as run:
        assert str(run) == "fora: nothing ran yet."


def test_above_is_above_and_short():
    for x in (0.0803, 0.0799999, 0.8, 1.0, 99.9, 1234.5, 3e-8, 0.1):
        assert x < above(x) <= 1.11 * x
        assert len(f"{above(x):g}".replace(".", "").strip("0").split("e")[0]) <= 2
    assert above(0.0) == 0.0


def test_seconds_are_of_the_run_itself():
    _, run = said("taylorseer")
    trace = run.trace
    full = statistics.median(trace.seconds_by_mark["#"])
    assert trace.speedup == full * 20 / trace.seconds
    trace.timed = False
    assert trace.speedup is None and "times as fast" not in str(run)


# --- what to type next


def test_a_plan_is_named_by_what_makes_it_and_by_its_file_otherwise():
    methods = omnicache.methods()
    assert named(methods["taylorseer"].plan()) == ("-m", "taylorseer")
    plan = methods["fora"].plan(interval=4, granularity="stack")
    assert named(plan) == ("-m", "fora", "-o", "interval=4", "-o", "granularity=stack")
    others = [
        dataclasses.replace(plan, made_for={"num_inference_steps": 20}),
        dataclasses.replace(plan, guards=Guards(memory="1 MB")),
        dataclasses.replace(plan, method="diffusers' TaylorSeerCacheConfig"),
        methods["taylorseer"].plan() + methods["omnicache-md"].plan(),
        omnicache.Plan("policy", plan.policies),
    ]
    assert all(named(other) == () for other in others)


def test_a_plan_that_no_name_gives_is_to_be_saved_first(tmp_path):
    text, run = said(Policy(Every(4), Stack(), Residual(Hold())))
    assert 'after `run.plan.save("my.plan.json")`, `omnicache doctor PIPELINE -m my.plan.json` measures' in text
    text, run = said("taylorseer", interval=7, warmup=2)
    words = shlex.split(re.search("`omnicache doctor PIPELINE (.*)` measures", text)[1])
    assert words == ["-m", "taylorseer", "-o", "interval=7", "-o", "warmup=2"]
    options = {k: json.loads(v) for k, _, v in (word.partition("=") for word in words[3::2])}
    assert omnicache.methods()["taylorseer"].plan(**options) == run.plan


def test_a_command_is_told_in_its_own_words():
    _, run = said("teacache", threshold=1e-6)
    asked = Asked("my pipe", ("-m", "teacache", "-o", "threshold=1e-6"), ("--steps", "20"))
    assert re.search(r"try -o threshold=0\.\d+\.", run.told(asked))
    _, run = said("taylorseer", interval=7)
    command = "omnicache doctor 'my pipe' -m teacache -o threshold=1e-6 --steps 20"
    assert f"`{command}` measures" in run.told(asked)
    saved = dataclasses.replace(asked, saved="out/plan.json")
    assert "`omnicache doctor 'my pipe' -m out/plan.json --steps 20` measures" in run.told(saved)
    _, run = said("taylorseer", granularity="module", guards=Guards(memory=500))
    assert '--memory "' in run.told(asked)


def test_a_close_look_does_not_propose_itself():
    trace = timed("#.........", [0.01, *[0.008] * 9])
    assert "omnicache doctor" in " ".join(not_faster(trace, plan_of_steps(), Asked()))
    assert "omnicache doctor" not in " ".join(not_faster(trace, plan_of_steps(), Asked(closely=True)))


def test_a_schedule_for_another_number_of_steps_says_both_ways_out():
    plan = dataclasses.replace(omnicache.methods()["feb-cache"].plan(), made_for={"num_inference_steps": 50})
    text, run = said(plan, steps=20)
    assert (
        "Draw in those 50 steps (num_inference_steps=50), or carry it over to 20, unmeasured: in Python, run.plan.for_steps(20)."
        in text
    )
    assert "." in said(run.plan.for_steps(20), steps=20)[1].computed
    asked = Asked("emoji", ("-m", "x.plan.json"))
    assert "Draw in those 50 steps (--steps 50), or carry" in run.told(asked)
    assert 'omnicache.Plan.load("x.plan.json").for_steps(20).save("my.plan.json")' in run.told(asked)


# --- several runs


def test_the_last_of_several_runs_is_said_to_be_the_last():
    pipe = Pipe(dit())
    with omnicache.cache(pipe, "fora") as run:
        pipe()
        assert str(run).startswith("fora: 10 evaluations")
        pipe()
        pipe()
    assert str(run).startswith("fora, the last of 3 runs: 10 evaluations")
    assert run.told(Asked()).startswith("fora: 10 evaluations")


def test_runs_of_threads_are_counted_together():
    pipe = Pipe(dit())
    with omnicache.cache(pipe, "fora") as run:
        pipe()
        threads = [threading.Thread(target=lambda: Pipe(pipe.model)()) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert run.sessions[0].begun == 4
    assert re.match(r"fora, (the last of 4 runs|run \d of 4): ", str(run))


def test_only_typing_errors_are_guessed_at():
    names = [*omnicache.methods(), "guidance_scale"]
    for word, meant in {
        "taylorsear": "taylorseer",
        "guidence_scale": "guidance_scale",
        "tea-cache": "teacache",
        "taylor": "taylorseer",
        "trajectory": "omnicache-trajectory",
    }.items():
        assert nearest(word, names) == f" Did you mean {meant!r}?"
    assert nearest("nope", names) == "" and nearest("nothing", ["dolphin", "fox"]) == ""
