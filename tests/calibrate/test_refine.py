"""What a plan by layer need not compute: test 14 of OmniCache-MD's reference, on random graphs and by hand."""

import random

import pytest

from omnicache.calibrate.layers.refine import Node, align, cost, legalise, liveness, refine, versions


def execute(graph, plan):
    """What the output nodes give at each step, as nested tuples, and how many nodes were computed. Dead ones may not be read."""
    kept, given, calls = {}, [], 0
    for t in range(len(plan[0])):
        now = []
        for n, node in enumerate(graph):
            mark = plan[n][t]
            if mark in "Cc":
                calls += 1
                taken = tuple(now[p] for p in node.parents)
                assert None not in taken, "a dead value was read"
                value = hash((n, taken, t if node.timed else None))
                if mark == "C":
                    kept[n] = value
            else:
                value = kept[n] if mark in "Rr" else None  # a KeyError where an empty slot is read
            now.append(value)
        given.append([now[n] for n, node in enumerate(graph) if node.output])
    return given, calls


def case(seed):
    """A random graph, plan and interval."""
    draw = random.Random(seed)
    size, steps = draw.randint(1, 8), draw.randint(1, 12)

    def parents(n):
        return tuple(sorted(draw.sample(range(n), draw.randint(0, min(n, 3)))))

    graph = [Node(parents(n), draw.random() < 0.6, n == size - 1 or draw.random() < 0.1) for n in range(size)]
    return graph, ["".join(draw.choice("CRRRc") for _ in range(steps)) for _ in graph], draw.randint(2, 6)


SEEDS = [range(first, first + 100) for first in range(0, 1000, 100)]


@pytest.mark.parametrize("seeds", SEEDS, ids=lambda r: str(r.start))
def test_14_versions_and_liveness_change_no_output_and_cost_no_more(seeds):
    for seed in seeds:
        graph, plan, interval = case(seed)
        legal = legalise(plan, interval)
        given, calls = execute(graph, legal)
        assert execute(graph, versions(graph, legal))[0] == given
        once = liveness(graph, versions(graph, legal))
        fewer = execute(graph, once)
        assert fewer[0] == given
        assert fewer[1] <= calls
        exact = refine(graph, plan, interval, aligned=False)
        assert execute(graph, exact)[0] == given


@pytest.mark.parametrize("seeds", SEEDS, ids=lambda r: str(r.start))
def test_14_a_second_application_changes_nothing_and_ages_stay_below_the_interval(seeds):
    moved = 0
    for seed in seeds:
        graph, plan, interval = case(seed)
        exact, aligned = (refine(graph, plan, interval, a) for a in (False, True))
        assert refine(graph, exact, interval, aligned=False) == exact
        assert refine(graph, aligned, interval) == aligned
        given, calls = execute(graph, exact)
        after = execute(graph, aligned)
        assert after[1] <= calls
        moved += after[0] != given
        for word in (*exact, *aligned):
            fresh = None
            for t, mark in enumerate(word):
                fresh = t if mark in "Cr" else fresh  # what is exactly what computing would give is as fresh
                assert mark != "R" or (fresh is not None and t - fresh < interval)
    assert moved  # aligning does change some


def test_14_above_a_reused_block_of_a_chain_everything_is_dead():
    chain = [Node(), *(Node((n,)) for n in range(5)), Node((5,), output=True)]
    plan = ["CCC"] * 5 + ["CRC", "CCC"]
    assert refine(chain, plan, 5) == ("cDc",) * 5 + ("CRc", "ccc")


def test_a_skip_connection_keeps_alive_what_it_needs():
    graph = [Node(), Node((0,)), Node((1,)), Node((1, 2)), Node((3,), output=True)]  # 1 is taken by 3, too
    plan = ["CC", "CC", "CR", "CC", "CC"]
    assert refine(graph, plan, 5)[1] == "cc"
    assert refine(graph, ["CC", "CC", "CR", "CR", "CC"], 5)[:3] == ("cD", "cD", "cD")


def test_what_does_not_take_the_time_is_computed_once():
    text, keys = Node((), timed=False), Node((0,), timed=False)
    graph = [text, keys, Node(), Node((1, 2), output=True)]
    assert refine(graph, ["CCCC"] * 4, 2) == ("cDDD", "Crrr", "cccc", "cccc")


def test_a_computation_from_old_values_waits_for_fresh_ones():
    graph = [Node(), Node((0,)), Node((1,)), Node((2,), output=True)]
    plan = ["CCCC", "CRCR", "CCRR", "CCCC"]
    assert align(graph, plan, 5)[2] == "CRCR"
    assert align(graph, ["CCCCCC", "CRRRRC", "CCRRRR", "CCCCCC"], 4)[2] == "CCRRRR"  # it would get five steps old


@pytest.mark.parametrize(
    ("word", "interval", "legal"),
    [("RRRR", 4, "CRRR"), ("CRRRRR", 3, "CRRCRR"), ("CrRRRR", 4, "CrRRRC"), ("CCCC", 2, "CCCC"), ("cRRR", 5, "cCRR")],
)
def test_a_reuse_of_nothing_or_of_what_is_too_old_is_computed(word, interval, legal):
    assert legalise([word], interval) == (legal,)


def test_the_cost_is_the_time_of_what_is_computed():
    assert cost(("CRcD", "rrCC"), [[1, 2, 4, 8], [16, 32, 64, 128]]) == 1 + 4 + 64 + 128
