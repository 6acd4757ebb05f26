"""How the tuned plan stands to its rivals at one goal, in one word and one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

CLEAR = 1.2
"""Times as fast as a rival that is asked for."""
ORDER = ("misses", "loses", "even", "open", "ahead", "wins")
"""What can come of it, worst first. "misses": there is no plan, or it falls short of the goal on held-out inputs, its mean being
below the goal by more than its interval; "loses": a rival is faster; "even": not told apart from one; "open": one was not
measured, or none of its kind was tried; "ahead": faster than all, but not by :data:`CLEAR`; "wins": by that or more."""
RIVALS = {"peer": "the best peer", "fewer steps": "the best of fewer steps"}
MISSING = {"peer": "No peer's setting reaches it.", "fewer steps": "No run of fewer steps reaches it."}
UNTRIED = {"peer": "No peer was tried.", "fewer steps": "No run of fewer steps was tried."}
NO_TIME = "There was no time for it."


def best(chosen: Sequence[Mapping[str, Any]], goal: float, kind: str) -> Mapping[str, Any] | None:
    """The fastest of a kind on held-out inputs, of the settings that were chosen for a goal."""
    mine = [one for one in chosen if one["goal"] == goal and one["kind"] == kind and one["held"] is not None]
    return max(mine, key=lambda one: one["held"]["speedup"]["median"], default=None)


def verdict(chosen: Sequence[Mapping[str, Any]], duels: Sequence[Mapping[str, Any]], goal: float, tuned: str) -> dict[str, Any]:
    """``{"goal", "outcome", "sentence"}``; the outcome is one of :data:`ORDER`.

    Args:
        chosen: of each contender: ``goal``, ``contender``, ``kind``, ``label``, ``held`` figures.
        duels: ``goal``, ``kind``, ``ratio`` of speeds, tuned to rival, or ``why`` there is none.
        tuned: name of the contender that is judged.
    """
    ours = next((one for one in chosen if one["goal"] == goal and one["contender"] == tuned), None)
    if ours is None or ours["held"] is None:
        rivals = [one for kind in RIVALS if (one := best(chosen, goal, kind)) is not None]
        made = ours is not None and ours["label"] is not None
        if ours is not None and made:
            said = f"At {goal:g} dB the tuned plan ({ours['label']}) was not measured on held-out inputs. {_reason(ours)}"
        else:
            said = f"At {goal:g} dB there is no tuned plan. {(ours or {}).get('why') or 'No plan was tuned for it.'}"
        if rivals:
            said += f" {' and '.join(f'{_who(one)} is {_speed(one)}' for one in rivals)}."
        return {"goal": goal, "outcome": "open" if made else "misses", "sentence": said}
    parts, missing, outcomes = [], [], []
    for kind, words in RIVALS.items():
        duel = next((one for one in duels if one["goal"] == goal and one["kind"] == kind), None)
        rival = best(chosen, goal, kind)
        if duel is None or rival is None or "ratio" not in duel:
            tried = [one for one in chosen if one["goal"] == goal and one["kind"] == kind]
            mine = [one for one in tried if one["label"] is not None]
            why = _reason(duel) if duel is not None else next((_reason(one) for one in mine if one["held"] is None), NO_TIME)
            nobody = MISSING[kind] if tried else UNTRIED[kind]
            missing.append(f"It was not measured against {words}: {why}" if mine else nobody)
            outcomes.append("wins" if tried and not mine else "open")
            continue
        outcomes.append(_outcome(duel["ratio"]))
        parts.append(_told(outcomes[-1], duel["ratio"], words, f"{_who(rival)}, {_decibel(rival)}{_below(rival)}"))
    told = ", ".join([f"{_speed(ours)} ({_decibel(ours)}{_below(ours)})", *parts])
    said = " ".join([f"At {goal:g} dB the tuned plan is {told}.", *missing])
    outcome = min(outcomes, key=ORDER.index)
    if _short(ours):
        outcome = "misses"
        said = f"On held-out inputs the plan that was tuned for {goal:g} dB falls short of it: {_decibel(ours)}. {said}"
    return {"goal": goal, "outcome": outcome, "sentence": said}


def _outcome(ratio: Mapping[str, float]) -> str:
    if ratio["low"] <= 1:
        return "loses" if ratio["high"] < 1 else "even"
    return "ahead" if ratio["median"] < CLEAR else "wins"


def _told(outcome: str, ratio: Mapping[str, float], words: str, rival: str) -> str:
    times, span = f"{ratio['median']:.2f} times as fast", f"{ratio['low']:.2f} to {ratio['high']:.2f}"
    if outcome in ("even", "loses"):
        return f"{'not told apart from' if outcome == 'even' else 'slower than'} {words} ({times}, {span}; {rival})"
    return f"{times} as {words} ({span}; {rival})"


def _reason(one: Mapping[str, Any]) -> str:
    return one.get("why") or NO_TIME


def _who(one: Mapping[str, Any]) -> str:
    return f"{one['contender']}: {one['label']}"


def _speed(one: Mapping[str, Any]) -> str:
    return f"{one['held']['speedup']['median']:.2f} times as fast as uncached"


def _decibel(one: Mapping[str, Any]) -> str:
    return f"{one['held']['psnr']['mean']:.1f} dB"


def _below(one: Mapping[str, Any]) -> str:
    if _short(one):
        return ", short of the goal"
    return ", just short of the goal" if one["held"]["psnr"]["mean"] < one["goal"] else ""


def _short(one: Mapping[str, Any]) -> bool:
    """Whether the mean misses the goal by more than the inputs at hand leave unsure: the upper end of its 95 % interval is below
    the goal. A mean that is below it by less may be chance, and is told as it is."""
    return one["held"]["psnr"]["high"] < one["goal"]
