"""Why a run is not faster, and what to do about it: sentences from what its trace has counted and timed, each with a next step."""

from __future__ import annotations

from omnicache.plan import Plan
from omnicache.policy import Remark
from omnicache.registry import METHODS
from omnicache.runtime.trace import Trace
from omnicache.schema import Choice

MUCH = 0.5
"""Share of computed evaluations from which on it is said why they were."""
SLOW = 0.8
"""Share of the speed that the computed evaluations alone would give, below which it is said where the time goes."""


def why(trace: Trace, plan: Plan) -> list[str]:
    """Sentences on a run: why it is not faster, and where it may stray."""
    if not trace.records or not plan.policies:
        return []
    return [*not_faster(trace, plan), *([said] if (said := _stretch(trace, plan)) else [])]


def not_faster(trace: Trace, plan: Plan) -> list[str]:
    """Why so much was computed, and why what was not computed still takes time."""
    return [said for said in (_computed(trace, plan), _slow(trace, plan)) if said]


def _computed(trace: Trace, plan: Plan) -> str | None:
    """Why many evaluations were computed, by the trigger that accounts for most of them."""
    strip = trace.computed
    full = strip.count("#")
    if full <= MUCH * len(strip):
        return None
    remarks = [remark for trigger in plan.triggers for remark in trigger.why(trace.seen())]
    if not remarks:
        return None
    most = max(remarks, key=lambda remark: remark.steps)
    more = " or take more steps" if most.option in ("warmup", "tail") else ""
    share = "" if full == len(strip) else f"{full} of {len(strip)} steps were computed. "
    return f"{share}{most.said}: try {_option(most, plan)}{more}."


def _option(remark: Remark, plan: Plan) -> str:
    """The option of the plan that a trigger's number comes from, with the better one; the trigger's own word if none does."""
    same = [k for k, v in plan.options.items() if isinstance(v, (int, float)) and not isinstance(v, bool) and v == remark.now]
    name = remark.option if remark.option in same else same[0] if len(same) == 1 else None
    return f"{name}={remark.better:g}" if name is not None else f"a {remark.option} of {remark.better:g}"


def _slow(trace: Trace, plan: Plan) -> str | None:
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
    mark = max(others, key=lambda m: len(trace.seconds_by_mark[m]))
    records = sorted((r for r in trace.records if r.mark == mark), key=lambda r: r.reused)
    middle = records[len(records) // 2]
    ran = middle.computed + middle.partial
    kind, did = {
        ".": ("a reused one", f"fills in {_counted(middle.reused)}"),
        "?": ("a checked one", f"fills in {_counted(middle.reused)} and is checked"),
        "o": ("one computed in part", f"runs {_counted(ran)}, {middle.partial} of them in part, and fills in {middle.reused}"),
    }[mark]
    said = f"{full} of {count} evaluations were computed, which would be {ideal:.2f} times as fast if the others cost nothing; but "
    said += f"{kind} takes {100 * each[mark] / each['#']:.0f} % of the time of a computed one: it {did}"
    return f"{said}. {_cheaper(plan)}"


def _longest(trace: Trace) -> str:
    """The evaluation that took longest for its kind."""
    each, by = trace.seconds_each, {mark: iter(times) for mark, times in trace.seconds_by_mark.items()}
    took = [(next(by[record.mark]) - each[record.mark], i, record.mark) for i, record in enumerate(trace.records)]
    longer, at, mark = max(took)
    first = "; the first of a process warms up, so draw once more" if at == 0 else ""
    return f"Number {at + 1} took {longer + each[mark]:.2f} s, where {each[mark]:.3g} s is the median{first}."


def _counted(modules: int) -> str:
    return f"{modules} module{'' if modules == 1 else 's'}"


def _cheaper(plan: Plan) -> str:
    """What would make a reused evaluation cheaper."""
    entry = METHODS.get(plan.method)
    option = next((o for o in entry.options if o.name == "granularity"), None) if entry is not None else None
    coarser = option is not None and isinstance(option.allowed, Choice) and "stack" in option.allowed.words
    if option is not None and coarser and plan.options.get("granularity", option.default) != "stack":
        return 'Try granularity="stack", which fills in one value for all blocks.'
    return f"`omnicache doctor PIPELINE -m {plan.method}` times both against the uncached pipeline."


def _stretch(trace: Trace, plan: Plan) -> str | None:
    """The longest row of steps in which nothing was computed: if a picture looks wrong, look here first."""
    longest = max((part for part in trace.computed.replace("o", "#").split("#") if part), key=len, default="")
    if len(longest) < 2:
        return None
    first = trace.computed.replace("o", "#").index(longest) + 1
    where = f"{len(longest)} steps, {first} to {first + len(longest) - 1}"
    return (
        f"Does it look wrong? The longest stretch without computing is {where}; `omnicache doctor PIPELINE -m {plan.method}` "
        "measures which part of the run the error comes from."
    )
