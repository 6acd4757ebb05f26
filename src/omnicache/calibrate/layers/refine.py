"""What a plan by layer need not compute, on any graph of layers (OmniCache-MD, Algorithms 2 and 3, as read in the reference).

A plan is one word a node, with one letter a step:

    C  compute, and keep the value             R  reuse the kept value
    c  compute, and keep nothing               r  reuse a kept value that is what computing would give
    D  dead: nobody asks for it                (``r`` and ``D`` are made here, a plan begins with the others)

``versions`` and ``liveness`` change no number that the output nodes give. ``align`` does: it moves a computation from stale
inputs to where they are fresh.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Words = tuple[str, ...]


@dataclass(frozen=True)
class Node:
    """One layer of the graph.

    Attributes:
        parents: numbers of the nodes whose values it takes; all are smaller than its own.
        timed: whether it takes the timestep or the changing latent, too. What does not gives the same from the same parents.
        output: whether its value is wanted at every step.
    """

    parents: tuple[int, ...] = ()
    timed: bool = True
    output: bool = False


def refine(graph: Sequence[Node], plan: Sequence[str], interval: int, aligned: bool = True) -> Words:
    """A plan that costs no more than ``legalise(plan)`` and, unless aligned, gives the same. Applying it again changes nothing.

    Args:
        graph: the nodes, parents before children.
        plan: one word a node.
        interval: values get at most ``interval - 1`` steps old, but for those that are exact.
        aligned: also compute where inputs are fresh rather than stale.
    """
    words = legalise(plan, interval)
    while True:
        after = liveness(graph, versions(graph, words))
        if aligned:
            after = align(graph, after, interval)
        if after == words:
            return words
        words = after


def legalise(plan: Sequence[str], interval: int) -> Words:
    """A reuse of nothing, as at the first step, and one of a value ``interval`` steps old are computed."""
    made = []
    for word in plan:
        marks, fresh, kept = list(word), -1, False
        for t, mark in enumerate(marks):
            if (mark in "Rr" and not kept) or (mark == "R" and t - fresh >= interval):
                marks[t] = "C"
            if marks[t] in "Cr":
                fresh, kept = t, True
        made.append("".join(marks))
    return tuple(made)


def versions(graph: Sequence[Node], plan: Sequence[str]) -> Words:
    """What would be computed from the very values from which the kept one was computed is reused."""
    words = [list(word) for word in plan]
    numbers: dict[object, int] = {}  # so that a version stays a number, however long its history
    kept: list[object] = [None] * len(graph)
    for t in range(len(words[0])):
        now: list[object] = []
        for n, node in enumerate(graph):
            mark = words[n][t]
            if mark in "Rr":
                now.append(kept[n])
                continue
            key = (n, t) if node.timed or mark == "D" else (n, tuple(now[p] for p in node.parents), "untimed")
            version = numbers.setdefault(key, len(numbers))
            if mark in "Cc" and not node.timed and version == kept[n]:
                words[n][t] = "r"
            elif mark == "C":
                kept[n] = version
            now.append(version)
    return tuple("".join(word) for word in words)


def liveness(graph: Sequence[Node], plan: Sequence[str]) -> Words:
    """What nobody asks for is dead, and what nobody will read is not kept."""
    words = [list(word) for word in plan]
    children: list[list[int]] = [[] for _ in graph]
    for n, node in enumerate(graph):
        for p in node.parents:
            children[p].append(n)
    read = [False] * len(graph)  # by a later reuse, before the next value is kept
    for t in range(len(words[0]) - 1, -1, -1):
        for n in range(len(graph) - 1, -1, -1):
            mark = words[n][t]
            wanted = graph[n].output or any(words[c][t] in "Cc" for c in children[n])
            if mark == "C":
                words[n][t] = "C" if read[n] else "c" if wanted else "D"
                read[n] = False
            elif mark == "c":
                words[n][t] = "c" if wanted else "D"
            elif mark == "R":
                words[n][t] = "R" if wanted else "D"
                read[n] |= wanted
            elif mark == "r":  # one that is not wanted still vouches for the age of what is read later
                words[n][t] = "r" if wanted or read[n] else "D"
                read[n] |= wanted
    return tuple("".join(word) for word in words)


def align(graph: Sequence[Node], plan: Sequence[str], interval: int) -> Words:
    """A computation from nothing but old values moves to the next step at which one of them is computed, if age allows."""
    words = [list(word) for word in plan]
    for n, node in enumerate(graph):
        marks = words[n]
        for t in range(1, len(marks)):
            if marks[t] not in "Cc" or not node.parents or any(words[p][t] != "R" for p in node.parents):
                continue
            later = next((s for s in range(t, len(marks)) if any(words[p][s] in "Cc" for p in node.parents)), None)
            fresh = max((s for s in range(t) if marks[s] in "Cr"), default=None)
            if later is None or fresh is None or later - 1 - fresh >= interval or "c" in marks[fresh:t]:
                continue
            if marks[later] not in "Cc" and any(words[p][later] == "D" for p in node.parents):
                continue  # it would have to be brought back to life
            marks[t:later] = "R" * (later - t)
            marks[later] = "C"
    return tuple("".join(word) for word in words)


def cost(plan: Sequence[str], lat: Sequence[Sequence[float]]) -> float:
    """Seconds that a plan computes: of every ``C`` and ``c``."""
    return sum(lat[n][t] for n, word in enumerate(plan) for t, mark in enumerate(word) if mark in "Cc")
