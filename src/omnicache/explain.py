"""Why a run is not faster, and what to do about it: sentences from what its trace has counted and timed, each with a next step."""

from __future__ import annotations

from collections.abc import Sequence

from omnicache.asked import Asked
from omnicache.errors import OmniCacheError
from omnicache.guards import limit_for
from omnicache.plan import Plan
from omnicache.policy import Remark
from omnicache.registry import METHODS
from omnicache.runtime.trace import Trace
from omnicache.schema import Choice, Range
from omnicache.words import seconds

MUCH = 0.5
"""Share of computed evaluations from which on it is said why they were."""
SLOW = 0.8
"""Share of the speed that the computed evaluations alone would give, below which it is said where the time goes."""
ENDS = ("warmup", "tail")
"""What methods call the steps at the ends of a run that are always computed."""


def why(trace: Trace, plan: Plan, asked: Asked | None = None) -> list[str]:
    """Sentences on a run: why it is not faster, and where it may stray."""
    if not trace.records or not plan.policies:
        return []
    asked = asked if asked is not None else Asked()
    return [*not_faster(trace, plan, asked), *([said] if (said := _stretch(trace, plan, asked)) else [])]


def not_faster(trace: Trace, plan: Plan, asked: Asked) -> list[str]:
    """Why so much was computed, and why what was not computed still takes time."""
    parts = (_computed, _other_steps, _slow)
    return [said for part in parts if (said := part(trace, plan, asked))]


def _computed(trace: Trace, plan: Plan, asked: Asked) -> str | None:
    """Why many evaluations were computed, by the trigger that accounts for most of them; or what is in the triggers' way."""
    if trace.held_back == "memory" and trace.wanted_bytes:
        return f"All of it has room with {asked.limit(limit_for(trace.wanted_bytes))}."
    strip = trace.computed
    full = strip.count("#")
    if trace.held_back or full <= MUCH * len(strip):
        return None
    most = _cause([remark for trigger in plan.triggers for remark in trigger.why(trace.seen())], full)
    if most is None:
        return None
    more = " or take more steps" if most.option in ENDS else ""
    share = "" if full == len(strip) else f"{full} of {len(strip)} steps were computed. "
    return f"{share}{most.said}: try {_option(most, plan, asked)}{more}."


def _cause(remarks: Sequence[Remark], full: int) -> Remark | None:
    """The remark that accounts for most of the ``full`` computed steps; None if none accounts for half of them.

    The ends of a run count only for themselves: what was computed between them has another cause.
    """
    ends = max((r for r in remarks if r.option in ENDS), key=lambda r: r.steps, default=None)
    other = max((r for r in remarks if r.option not in ENDS), key=lambda r: r.steps, default=None)
    if other is not None and (ends is None or other.steps >= min(ends.steps, full - ends.steps) > 0):
        return other
    return ends if ends is not None and 2 * ends.steps >= full else None


def _option(remark: Remark, plan: Plan, asked: Asked) -> str:
    """The option of the plan that a trigger's number comes from, with the better one; the trigger's own word if none does."""
    same = [k for k, v in plan.options.items() if isinstance(v, (int, float)) and not isinstance(v, bool) and v == remark.now]
    name = remark.option if remark.option in same else same[0] if len(same) == 1 else None
    if name is None:
        return f"{'an' if remark.option[0] in 'aeiou' else 'a'} {remark.option} of {remark.better:g}"
    entry = METHODS.get(plan.method)
    allowed = next((o.allowed for o in entry.options if o.name == name), None) if entry is not None else None
    least = allowed.low if isinstance(allowed, Range) and allowed.low is not None else remark.better
    return asked.option(name, max(remark.better, least))


def _slow(trace: Trace, plan: Plan, asked: Asked) -> str | None:
    """Why evaluations that were not computed still take time."""
    each = trace.seconds_each
    others = [mark for mark in each if mark != "#"]
    if trace.speedup is None or not others:
        return None
    count, full = len(trace.records), sum(record.mark == "#" for record in trace.records)
    ideal = count / full
    if trace.speedup >= SLOW * ideal or each["#"] <= 0:
        return None
    at_medians = each["#"] * count / sum(each[record.mark] for record in trace.records)
    if at_medians >= SLOW * ideal:
        return f"Single evaluations took long for their kind; else it would be {at_medians:.2f} times as fast. {_longest(trace)}"
    mark = max(others, key=lambda m: sum(trace.seconds_by_mark[m]))
    records = sorted((r for r in trace.records if r.mark == mark), key=lambda r: r.reused)
    middle = records[len(records) // 2]
    ran = middle.computed + middle.partial
    kind, did = {
        ".": ("a reused one", f"fills in {_counted(middle.reused)}"),
        "?": ("a checked one", f"fills in {_counted(middle.reused)} and is checked"),
        "o": ("one computed in part", f"runs {_counted(ran)}, {middle.partial} of them in part, and fills in {middle.reused}"),
    }[mark]
    said = f"{full} of {count} evaluations were computed, which would be {ideal:.2f} times as fast if the others cost nothing; but "
    said += f"{kind} takes {100 * each[mark] / each['#']:.0f} % of the time of a computed one: it {did}."
    return " ".join([said, *_cheaper(plan, asked)])


def _longest(trace: Trace) -> str:
    """The evaluation that took longest for its kind."""
    each, by = trace.seconds_each, {mark: iter(times) for mark, times in trace.seconds_by_mark.items()}
    took = [(next(by[record.mark]) - each[record.mark], i, record.mark) for i, record in enumerate(trace.records)]
    longer, at, mark = max(took)
    first = "; the first of a process warms up, so draw once more" if at == 0 else ""
    return f"Number {at + 1} took {seconds(longer + each[mark])}, where {seconds(each[mark])} is the median{first}."


def _counted(modules: int) -> str:
    return f"{modules} module{'' if modules == 1 else 's'}"


def _cheaper(plan: Plan, asked: Asked) -> list[str]:
    """What would make a reused evaluation cheaper."""
    entry = METHODS.get(plan.method)
    option = next((o for o in entry.options if o.name == "granularity"), None) if entry is not None else None
    coarser = option is not None and isinstance(option.allowed, Choice) and "stack" in option.allowed.words
    if option is not None and coarser and plan.options.get("granularity", option.default) != "stack":
        return [f"Try {asked.option('granularity', 'stack')}, which fills in one value for all blocks."]
    return [] if asked.closely else [f"{_sentence(asked.look(plan))} times both against the uncached pipeline."]


def _sentence(words: str) -> str:
    """With a capital letter, where it begins with a word of ours."""
    return words[:1].upper() + words[1:]


def _other_steps(trace: Trace, plan: Plan, asked: Asked) -> str | None:
    """What to do with a schedule that is for another number of steps."""
    total = trace.records[0].step.total
    if total is None or not any(t.misfit(total) for t in plan.triggers):
        return None
    made = plan.made_for.get("num_inference_steps")
    ways = [] if made is None else [f"draw in those {made} steps ({'--steps ' if asked.plan else 'num_inference_steps='}{made})"]
    try:
        plan.for_steps(total)
    except OmniCacheError:
        pass
    else:
        ways.append(f"carry it over to {total}, unmeasured: in Python, {asked.carried(total)}")
    return f"{_sentence(', or '.join(ways))}." if ways else None


def _stretch(trace: Trace, plan: Plan, asked: Asked) -> str | None:
    """The longest row of steps in which nothing was computed: if a picture looks wrong, look here first."""
    longest = max((part for part in trace.computed.replace("o", "#").split("#") if part), key=len, default="")
    if len(longest) < 2:
        return None
    first = trace.computed.replace("o", "#").index(longest) + 1
    where = f"{len(longest)} steps, {first} to {first + len(longest) - 1}"
    return (
        f"Does it look wrong? The longest stretch without computing is {where}; {asked.look(plan)} "
        "measures which part of the run the error comes from."
    )
