"""What ``print(run)`` says to who wonders: every sentence is provoked by a run, and where it names a better setting, that helps."""

from __future__ import annotations

import re
import statistics
import time

import omnicache
from omnicache import Guards
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
