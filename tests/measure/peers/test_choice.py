"""What is chosen for a goal, and what is said of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnicache.measure.peers.choice import FAR, SLOW, choice, finalists, nearest, settled
from omnicache.measure.peers.size import Size, spread
from omnicache.measure.peers.verdict import ORDER, verdict


def row(label, psnr, speedup, state="measured", **options):
    return {"label": label, "psnr": {"mean": psnr}, "speedup": {"median": speedup}, "state": state, "options": options}


ROWS = [row("a", 35, 1.5), row("b", 31, 2.0), row("c", 26, 3.0), row("d", 50, 0.9), row("e", 99, 9.0, state="nothing")]


@pytest.mark.parametrize(("goal", "label"), [(34, "a"), (30, "b"), (25, "c")])
def test_the_fastest_that_reaches_the_goal_is_chosen(goal, label):
    found = choice(ROWS, goal)
    assert found is not None and found["label"] == label


def test_where_none_reaches_it_the_likest_that_is_faster_than_uncached_is_named():
    assert choice(ROWS, 40) is None
    found = nearest(ROWS)
    assert found is not None and found["label"] == "a"
    assert nearest([ROWS[3]]) is None


def test_settings_that_are_about_as_fast_are_timed_again():
    rows = [row("a", 31, 2.0), row("b", 33, 1.6), row("c", 32, 1.9), row("d", 40, 1.4), row("e", 20, 3.0)]
    assert [one["label"] for one in finalists(rows, 30, 3)] == ["a", "c", "b"]
    assert [one["label"] for one in finalists(rows, 30, 2)] == ["a", "c"]
    assert finalists(rows[3:], 30, 3) == [], "where one is alone there is nothing to settle"
    assert len(finalists(rows, 30, 3, [*rows, row("f", 31, 2.6)])) == 3
    assert finalists(rows, 30, 3, [*rows, row("f", 31, 2.7)]) == [], "another of its kind is faster than any of these can be"


@pytest.mark.parametrize(
    ("psnr", "speedup", "why"),
    [
        (20.4, 9.0, FAR),  # 4.6 dB below the lowest goal
        (20.6, 2.3, ""),  # may reach 25 dB, and is about as fast as c
        (25.4, 2.2, SLOW),  # cannot reach 30 dB; c is much faster at 25
        (29.0, 1.6, ""),  # about as fast as b, which reaches 30 dB
        (29.0, 1.4, SLOW),
        (80.0, 1.4, SLOW),
    ],
)
def test_a_first_batch_settles_what_cannot_be_chosen(psnr, speedup, why):
    assert settled(ROWS, (30, 25), psnr, speedup) == why


def test_nothing_is_settled_by_what_does_not_reach_the_goal_itself():
    assert settled([row("x", 29.9, 9.0), row("y", 35, 9.0) | {"settled": FAR}], (30,), 50, 1.1) == ""


def test_what_was_settled_is_never_chosen():
    found = choice([row("fast by luck", 40, 5.0) | {"settled": SLOW}, *ROWS], 30)
    assert found is not None and found["label"] == "b"


def test_a_refused_setting_is_never_chosen():
    assert choice([{"label": "x", "state": "refused", "why": "no", "options": {}}], 30) is None


def test_what_was_made_for_a_goal_stands_for_that_one_alone():
    rows = [row("30", 29.5, 2.0, goal=30), row("25", 35, 3.0, goal=25)]
    for goal in (30, 25):
        found = choice(rows, goal)
        assert found is not None and found["label"] == str(goal), "the maker has chosen, whatever the few inputs say"
    assert choice(rows, 20) is None


@given(st.integers(0, 70))
def test_an_order_that_is_spread_has_everything_once_and_begins_wide(count):
    order = spread(count)
    assert sorted(order) == list(range(count))
    if count > 8:
        assert max(order[:4]) >= count // 2 > min(order[:4])


def test_batches_cover_all_inputs():
    assert Size(samples=5, batch=2).batches("held") == [(0, 2), (2, 4), (4, 5)]


# --- the verdict -----------------------------------------------------------------------------------------------------------


def one(contender, kind, speedup, goal=30.0, psnr=31.0, high=32.0):
    held = {"speedup": {"median": speedup}, "psnr": {"mean": psnr, "high": high}}
    return {"goal": goal, "contender": contender, "kind": kind, "label": f"{contender}!", "held": held}


def duel(kind, low, median, high, goal=30.0):
    return {"goal": goal, "kind": kind, "ratio": {"low": low, "median": median, "high": high}}


CHOSEN = [one("tuned", "ours", 3), one("p", "peer", 2), one("q", "peer", 2.5), one("fewer", "fewer steps", 1.5)]


@pytest.mark.parametrize(
    ("ratio", "outcome"),
    [((1.25, 1.3, 1.4), "wins"), ((1.05, 1.1, 1.15), "ahead"), ((0.9, 1.3, 1.4), "even"), ((0.7, 0.8, 0.9), "loses")],
)
def test_the_worst_of_the_duels_is_the_outcome(ratio, outcome):
    found = verdict(CHOSEN, [duel("peer", *ratio), duel("fewer steps", 1.9, 2, 2.1)], 30.0, "tuned")
    assert found["outcome"] == outcome
    assert "q: q!, 31.0 dB)" in found["sentence"] and "the best of fewer steps (1.90 to 2.10; fewer: fewer!" in found["sentence"]
    times = f"{ratio[1]:.2f} times as fast"
    told = {
        "even": f"not told apart from the best peer ({times}, 0.90 to 1.40;",
        "loses": f"slower than the best peer ({times}, 0.70 to 0.90;",
    }
    assert told.get(outcome, f"{times} as the best peer ({ratio[0]:.2f} to {ratio[2]:.2f};") in found["sentence"]


def test_where_no_rival_reaches_the_goal_the_plan_wins():
    none = [{**other, "label": None, "held": None} for other in CHOSEN[1:]]
    found = verdict([CHOSEN[0], *none], [], 30.0, "tuned")
    assert found["outcome"] == "wins"
    assert found["sentence"].endswith("No peer's setting reaches it. No run of fewer steps reaches it.")


@pytest.mark.parametrize(("tried", "said"), [(CHOSEN[:1], "No peer was tried. No run of fewer"), (CHOSEN[:3], "No run of fewer")])
def test_a_kind_of_which_nobody_was_tried_leaves_it_open(tried, said):
    """Not installed, not asked for, or no time: whoever was not there has not lost."""
    found = verdict(tried, [duel("peer", 1.5, 1.6, 1.7)] if len(tried) > 1 else [], 30.0, "tuned")
    assert found["outcome"] == "open"
    assert said in found["sentence"] and found["sentence"].endswith("No run of fewer steps was tried.")


def test_falling_short_on_held_out_inputs_comes_first():
    short = [one("tuned", "ours", 3, psnr=28, high=29), *CHOSEN[1:]]
    found = verdict(short, [duel("peer", 1.5, 1.6, 1.7)], 30.0, "tuned")
    assert found["outcome"] == "misses" and found["sentence"].startswith(
        "On held-out inputs the plan that was tuned for 30 dB falls"
    )


@pytest.mark.parametrize(("high", "outcome"), [(30.0, "wins"), (29.9, "misses")])
def test_a_mean_below_the_goal_is_a_miss_only_where_its_interval_is_too(high, outcome):
    short = [one("tuned", "ours", 3, psnr=29.7, high=high), *CHOSEN[1:]]
    found = verdict(short, [duel("peer", 1.5, 1.6, 1.7), duel("fewer steps", 1.9, 2, 2.1)], 30.0, "tuned")
    assert found["outcome"] == outcome and f"29.7 dB, {'just ' * (outcome == 'wins')}short of the goal" in found["sentence"]


def test_a_duel_that_came_to_nothing_says_why():
    dead = {"goal": 30.0, "kind": "peer", "why": "Its process has ended."}
    found = verdict(CHOSEN, [dead, duel("fewer steps", 1.9, 2, 2.1)], 30.0, "tuned")
    assert found["outcome"] == "open"
    assert found["sentence"].endswith("It was not measured against the best peer: Its process has ended.")


def test_a_rival_for_which_there_was_no_time_leaves_it_open():
    found = verdict(CHOSEN, [duel("peer", 1.5, 1.6, 1.7)], 30.0, "tuned")
    assert found["outcome"] == "open"
    assert found["sentence"].endswith("It was not measured against the best of fewer steps: There was no time for it.")
    chosen = [CHOSEN[0], *({**other, "held": None} for other in CHOSEN[1:])]
    found = verdict(chosen, [], 30.0, "tuned")
    assert found["outcome"] == "open" and "No peer's setting" not in found["sentence"]


def test_a_plan_that_was_not_measured_on_held_out_inputs_is_not_taken_for_none():
    for why in ("There was no time for it.", "Its process ended."):
        found = verdict([{**CHOSEN[0], "held": None, "why": why}, *CHOSEN[1:]], [], 30.0, "tuned")
        assert found["outcome"] == "open" and "was not measured on held-out inputs. " + why in found["sentence"]
    rival = {**CHOSEN[1], "held": None, "why": "Its process ended."}
    assert "against the best peer: Its process ended." in verdict([CHOSEN[0], rival, *CHOSEN[2:]], [], 30.0, "tuned")["sentence"]


def test_without_a_plan_the_rivals_are_named():
    chosen = [{**CHOSEN[0], "held": None, "label": None, "why": "psnr=30 was not reached."}, *CHOSEN[1:]]
    found = verdict(chosen, [], 30.0, "tuned")
    assert found["outcome"] == "misses" and "psnr=30 was not reached." in found["sentence"] and "q: q!" in found["sentence"]


def test_outcomes_are_sorted_worst_first():
    assert ORDER[0] == "misses" and ORDER[-1] == "wins"
