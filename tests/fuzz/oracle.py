"""The laws, one function each, as they hold for any case. ``check`` runs them all."""

from __future__ import annotations

import contextlib
import gc
import warnings
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from tests.holdings import kept, reach
from torch import Tensor, nn

import omnicache
from omnicache.api import Caching
from omnicache.models.discover import discover
from omnicache.plan import Plan
from omnicache.policy import Entry, History, Predictor, Tensors
from omnicache.predictors import Hold, Residual
from omnicache.runtime.step import Step
from omnicache.triggers import Every, First

from . import models
from .worlds import SCHEDULERS, Act, Case, Pipe, Run, asked_for, bare, finished


class Violation(AssertionError):
    """A law does not hold."""


def law(holds: bool, number: str, *said: Any) -> None:
    if not holds:
        raise Violation(f"law {number}: " + " ".join(map(str, said)))


TWICE = ("heun", "flow heun")
"""Schedulers that list a time twice, or are born in the middle of a run: a bare loop on one has no beginning that can be seen."""

DIFFUSERS = "_diffusers_hook"
"""What diffusers' own ``cache_context`` leaves on a model."""


# --- looking on ------------------------------------------------------------------------------------------------------------


def looks(pipe: Pipe) -> Any:
    """What a user can see of a model and its scheduler."""
    modules = dict(pipe.transformer.named_modules())
    return (
        list(pipe.transformer.state_dict()),
        {name: {k: id(v) for k, v in m.__dict__.items() if k != DIFFUSERS} for name, m in modules.items()},
        {name: len(m._forward_hooks) + len(m._forward_pre_hooks) for name, m in modules.items()},
        {name: vars(pipe.scheduler).get(name) for name in ("step", "set_timesteps")},
        sorted(vars(pipe)),
    )


@contextlib.contextmanager
def counted(model: nn.Module) -> Iterator[Counter[nn.Module]]:
    """Counts what really runs, by means that are not the library's."""
    calls: Counter[nn.Module] = Counter()
    hooks = [m.register_forward_pre_hook(lambda m, _: calls.update([m])) for m in model.modules()]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def close(a: Tensor, b: Tensor, share: float = 1e-4) -> bool:
    """Equal up to rounding; where the plain run is no number either, anything is."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if not torch.isfinite(b).all():
        return True
    return bool((a - b).abs().max() <= share * b.abs().max().clamp_min(1.0))


def same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a.nan_to_num(), b.nan_to_num())


# --- playing acts ----------------------------------------------------------------------------------------------------------


@dataclass
class World:
    """A case come to life, around a model of its own or the twin."""

    case: Case
    model: nn.Module | None = None
    scheduler: str = ""
    cancelled: bool = False
    """Whether the last run of this thread was; the next one of this thread takes its place, but no request does."""
    loose: bool = False
    """Whether a loop was left that nobody ends: one without a scheduler that is listened to, or a cancelled request."""
    pipe: Pipe = field(init=False)
    other: Pipe = field(init=False)

    def __post_init__(self) -> None:
        self.scheduler = self.scheduler or self.case.scheduler
        self.pipe = Pipe(self.case, self.model, self.scheduler)
        self.other = Pipe(self.case, self.pipe.transformer, "euler")

    def play(self, act: Act) -> list[Tensor]:
        """The latents at the end of every run of an act (None of a run that was cancelled before its first step)."""
        return list(filter(_is_tensor, (_last(steps) for steps in self._loops(act)))) if act.what != "requests" else []

    def _loops(self, act: Act) -> list[Iterator[Tensor]]:
        if act.what == "other pipeline":
            return [self.other.steps(act.run)]
        if act.what == "bare":
            return [bare(self.case.kind, self.pipe.transformer, act.run, SCHEDULERS[self.case.scheduler]())]
        if act.what == "new scheduler":
            self.scheduler = "euler" if self.scheduler != "euler" else "ddim"
            self.pipe.scheduler = SCHEDULERS[self.scheduler]()
        return [self.pipe.steps(act.run)]

    def requests(self, act: Act, run: Caching | None) -> list[Tensor]:
        """Two runs step by step in turn, each in a request of its own; without ``run``, one after the other."""
        loops = {"a": self.pipe.steps(act.run), "b": self.other.steps(replace(act.run, seed=act.run.seed + 1))}
        last: dict[str, Tensor] = {}
        while loops:
            for name in list(loops):
                with run.request(name) if run is not None else contextlib.nullcontext():
                    found = next(loops[name], None)
                if found is None:
                    del loops[name]
                else:
                    last[name] = found
        return list(last.values())


def _is_tensor(x: Any) -> bool:
    return isinstance(x, Tensor)


def _last(steps: Iterator[Tensor]) -> Tensor | None:
    found = list(steps)
    return found[-1] if found else None


def played(world: World, act: Act, run: Caching | None) -> list[Tensor]:
    return world.requests(act, run) if act.what == "requests" else world.play(act)


def drawn(case: Case, plan: Plan, run: Run, watch: Callable[[Caching], None] | None = None) -> tuple[Tensor, Caching]:
    """One run of a fresh twin under a plan."""
    pipe = Pipe(case)
    with omnicache.cache(pipe, plan) as caching:
        seen = []
        for x in pipe.steps(run):
            seen.append(x)
            if watch is not None:
                watch(caching)
    return seen[-1], caching


def plain(case: Case, run: Run) -> Tensor:
    return finished(Pipe(case).steps(run))


def always(plan: Plan, when: Any = None) -> Plan:
    """The same plan with every step computed."""
    return replace(plan, policies=tuple(replace(p, when=when or Every(1)) for p in plan.policies), steps=1.0)


def whole(run: Run) -> Run:
    return replace(run, cancelled=99)


# --- the laws --------------------------------------------------------------------------------------------------------------


def check(case: Case) -> str:
    """Runs the laws on one case. Returns what became of it; see ``Violation``."""
    gc.disable()  # what is freed must be freed by itself
    try:
        with warnings.catch_warnings(), case.mode():
            warnings.simplefilter("ignore")
            return _check(case)
    finally:
        gc.enable()


def _check(case: Case) -> str:
    world = World(case, models.model_of(case.kind))
    before = looks(world.pipe)
    unscathed = played(World(case), Act(run=whole(case.acts[0].run)), None)
    try:
        plan = case.made()
        run = omnicache.enable(world.pipe, plan)
    except omnicache.OmniCacheError:
        law(looks(world.pipe) == before, "2 (refused, and changed)")
        law(same(played(world, Act(run=whole(case.acts[0].run)), None)[0], unscathed[0]), "2 (refused, and draws otherwise)")
        return "refused"
    outcome = "computed"
    for act in case.acts:
        run = _law_of_an_act(world, act, plan, run)
        if any(r.reused or r.partial for s in run.sessions for r in s.trace.records):
            outcome = "reused"
    _law_of_removal(world, run, before, unscathed[0])
    first = whole(case.acts[0].run)
    if plan.policies:
        for name in case.laws:
            LAWS[name](case, plan, first)
    return outcome


def _law_of_an_act(world: World, act: Act, plan: Plan, run: Caching) -> Caching:
    """Whatever was done before: an act draws what it draws at a twin that has seen nothing, and holds nothing at its end."""
    if act.what == "anew":
        omnicache.disable(world.pipe)
        run = omnicache.enable(world.pipe, plan)
        world.loose = world.cancelled = False
    # PNDM lists its second time twice, and does not say with which of the two a run begins: one step is waited for in vain.
    world.loose |= world.scheduler == "pndm" and act.run.start == 2
    world.loose |= act.what == "bare" or (act.what == "requests" and act.run.cancelled != 99)
    then = world.scheduler
    found = played(world, act, run)
    twin = World(world.case, scheduler=then)
    with omnicache.cache(twin.pipe, plan) as fresh:
        wanted = played(twin, act, fresh)
    thinned = plan.steps != 1.0 and act.what not in (
        "run",
        "anew",
    )  # a scheduler is thinned out once it is known: from its second run on
    law(len(found) == len(wanted) or thinned, "3 (runs got lost)")
    size = (act.run.batch, *models.shape_of(world.case.kind, act.run.large))
    for a, b in zip(found, wanted, strict=False):
        law(a.shape == size and a.dtype == torch.float32, "1 (shape)", a.shape, size)
        law(bool(torch.isfinite(a).all()) or _wild(world, plan, act), "1 (not finite)")
        # A first reuse that failed its proof was computed, and later runs know it beforehand.
        known = thinned or any(s.distrusted for s in (*run.sessions, *fresh.sessions))
        # Of the same kind: once a row is proved, what is added inside it from the middle of a run on is no longer looked for.
        known |= isinstance(world.case.kind, models.Toy) and world.case.kind.between == "a late addition"
        known |= act.what == "bare" and world.case.scheduler in TWICE
        law(known or same(a, b), "3 (other than a twin's)", act.what)
    if not world.loose and act.run.cancelled == 99 and not (act.what == "requests" and world.cancelled):
        law(sum(s.bytes() for s in run.sessions) == 0, "11 (bytes held after", act.what, ")")
    world.cancelled = act.run.cancelled != 99 or (world.cancelled and act.what == "requests")
    for s in run.sessions:
        records = s.trace.records
        silent = len(records) > 1 and plan.policies and not any(r.reused or r.partial for r in records)
        law(not silent or bool(s.trace.notes), "0 (nothing was reused, without a word)")
    return run


def _wild(world: World, plan: Plan, act: Act) -> bool:
    """Extrapolation of a high order may leave all bounds, and so may the plain run of a toy."""
    if not all(bool(torch.isfinite(x).all()) for x in played(World(world.case, scheduler=world.scheduler), act, None)):
        return True
    return any(getattr(getattr(p.how, "inner", p.how), "order", 0) > 1 or p.fix is not None for p in plan.policies)


def _law_of_removal(world: World, run: Caching, before: Any, unscathed: Tensor) -> None:
    omnicache.disable(world.pipe)
    after = looks(world.pipe)
    differ = [n for n, a, b in zip(("keys", "dicts", "hooks", "scheduler"), before, after, strict=False) if a != b]
    law(not differ, "2 (something is left)", differ, *_differences(before[1], after[1]))
    law(sum(s.bytes() for s in run.sessions) == 0, "11 (bytes held after disable)")
    world.pipe.scheduler = SCHEDULERS[world.case.scheduler]()
    law(same(played(world, Act(run=whole(world.case.acts[0].run)), None)[0], unscathed), "2 (draws otherwise afterwards)")


def law_off(case: Case, plan: Plan, run: Run) -> None:
    """Computing every step is bit-identical to no cache."""
    when = Every(1) if run.seed % 2 else First(10**6)
    found, caching = drawn(case, always(plan, when), run)
    law(same(found, plain(case, run)), "1 (computed throughout, and other)", when)
    law(set(caching.computed) <= {"#"}, "1 (reused something)", caching.computed)


@dataclass
class Shown:
    """A pipeline whose model does not hear the time and is always shown the same input: each of its outputs must be the first.

    In double precision, so that no weight of an extrapolation hides anything.
    """

    case: Case

    def __post_init__(self) -> None:
        self.pipe = Pipe(self.case, models.model_of(self.case.kind).double())
        models.deaf(self.pipe.transformer)

    def steps(self, count: Callable[[int], None] = lambda step: None) -> Iterator[Tensor]:
        """The outputs of one run, each told beforehand."""
        kind, scheduler = self.case.kind, self.pipe.scheduler
        x = torch.randn(1, *models.shape_of(kind, False), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        told = {k: v.double() if v.is_floating_point() else v for k, v in models.conditions_of(kind, [2]).items()}
        scheduler.set_timesteps(self.case.acts[0].run.steps)
        for i, t in enumerate(scheduler.timesteps):
            if hasattr(scheduler, "scale_model_input"):
                scheduler.scale_model_input(x, t)  # some schedulers find their place there
            asked = models.arguments(kind, x.clone(), t, {**told, **models.places_of(kind, x)})
            count(i)
            out = self.pipe.transformer(**asked)
            count(-1)
            yield models.prediction(out, x.shape[1], x).clone()
            scheduler.step(torch.zeros_like(x), t, x, return_dict=False)


def law_still(case: Case, plan: Plan, run: Run) -> None:
    """What does not change is kept exactly."""
    shown = Shown(case)
    with omnicache.cache(shown.pipe, plan):
        outs = list(shown.steps())
    for i, out in enumerate(outs):
        law(close(out, outs[0], 1e-7), "8 (a still input gives another output at step", i, ")")


def law_counts(case: Case, plan: Plan, run: Run) -> None:
    """What the trace counts is what ran, module by module; and the trigger alone tells the steps, where nothing else has a say."""
    pipe = Pipe(case)
    with omnicache.cache(pipe, plan) as caching, counted(pipe.transformer) as calls:
        finished(pipe.steps(run))
    records, root = caching.trace.records, pipe.transformer
    sites = dict.fromkeys(s for p in plan.policies for s in p.where.select(discover(root)))
    modules = [m for s in sites for m in s.modules]
    looked = any(t.check is not None or t.signals for t in plan.triggers) or any(r.rehearsals for r in records)
    again = calls[root] != len(records) and root not in modules  # a proof failed: a step was run twice
    if looked or again or len(set(modules)) < len(modules) or caching.trace.records[-1:] == []:
        return
    if any(n.startswith("Nothing was reused: ") and r.computed == 1 for n in caching.trace.notes for r in records[:1]):
        return  # a run that is passed through is told as computed
    told, ran = sum(r.computed + r.partial for r in records), sum(calls[m] for m in modules)
    law(told == ran, "4 (the trace tells of", told, "computed sites, and", ran, "ran)")


def law_frees(case: Case, plan: Plan, run: Run) -> None:
    """The tensors that were kept at any step of a run are gone at its end, and they were as large as reported."""
    watched: list[weakref.ref[Tensor]] = []

    def watch(caching: Caching) -> None:
        tensors = reach(kept(caching), Tensor)
        held = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
        law(
            sum(s.bytes() for s in caching.sessions) == sum(held.values()), "11 (reported bytes)", caching.sessions[0].bytes(), held
        )
        watched.extend(weakref.ref(t) for t in tensors)

    _, caching = drawn(case, plan, run, watch)
    told = {id(v) for s in caching.sessions for r in s.trace.records for v in r.signals.values()}
    left = [t.shape for t in (ref() for ref in watched) if t is not None and id(t) not in told]
    law(not left, "11 (tensors outlive their run)", left)


# --- what is reused is right -----------------------------------------------------------------------------------------------


@dataclass
class Tape:
    """Computed values of a run: for each cell, by branch and step, what went in and what came out."""

    cells: list[dict[Any, tuple[Tensors, Tensors]]] = field(default_factory=list)
    lost: int = 10**6
    """The first step at which a value was asked for that had not been recorded."""
    strange: int = 10**6
    """The first step at which a site was given another input than when all was computed."""
    mixed: int = 10**6
    """The first step at which a guidance branch was given what another one had learned."""

    def find(self, where: Any, x: Tensors, y: Tensors) -> int:
        """The cell that had these values there; -1 if none, or several, had."""
        found = [
            i for i, cell in enumerate(self.cells) if where in cell and _equal(cell[where][1], y) and _equal(cell[where][0], x)
        ]
        return found[0] if len(found) == 1 else -1


def _equal(a: Tensors, b: Tensors) -> bool:
    return len(a) == len(b) and all(s.shape == t.shape and torch.equal(s, t) for s, t in zip(a, b, strict=True))


@dataclass(frozen=True, eq=False)
class Marked(Entry):
    cell: int = -1
    branch: str = ""


@dataclass(frozen=True, eq=False)
class Truth(Predictor):
    """Estimates nothing: it records the computed values of a run, and then plays them back in place of estimates.

    A run whose estimates are the truth must be the plain run to the bit, whatever the wiring: else something besides the value was
    lost, done twice, or put in the wrong place. Cells are told apart by the values that they learn.
    """

    tape: Tape
    needs_input: bool = False  # type: ignore[misc]
    playing: bool = False

    def learn(self, history: History, step: Step, x: Tensors, y: Tensors) -> History:
        where = self._where(history, step)
        if self.playing:
            cell = self.tape.find(where, x, y)
        else:
            cell = history[0].cell if history and isinstance(history[0], Marked) else -1
            if cell < 0:
                self.tape.cells.append({})
                cell = len(self.tape.cells) - 1
            self.tape.cells[cell][where] = (tuple(t.clone() for t in x), tuple(t.clone() for t in y))
        return (Marked(step, tuple(t.clone() for t in y), cell, where[0]),)

    def _where(self, history: History, step: Step) -> tuple[str, int]:
        if any(isinstance(e, Marked) and e.branch != asked_for.get() for e in history):
            self.tape.mixed = min(self.tape.mixed, step.index)
        return asked_for.get(), step.index

    def estimate(self, history: History, step: Step, x: Tensors) -> Tensors:
        newest = history[0]
        assert isinstance(newest, Marked)
        where = self._where(history, step)
        known = self.tape.cells[newest.cell].get(where) if newest.cell >= 0 else None
        if known is None or [t.shape for t in known[1]] != [t.shape for t in newest.tensors]:
            self.tape.lost = min(self.tape.lost, step.index)
            return newest.tensors
        if self.needs_input and x and not _equal(x, known[0]):
            self.tape.strange = min(self.tape.strange, step.index)
        return tuple(t.clone() for t in known[1])


def law_truth(case: Case, plan: Plan, run: Run) -> None:
    """With true values as estimates, a cached run is the plain one to the bit."""
    tapes = [Tape() for _ in plan.policies]

    def told(playing: bool) -> Plan:
        policies = tuple(
            replace(p, how=Truth(tape, p.how.needs_input, playing), which=None, fix=None)
            for p, tape in zip(plan.policies, tapes, strict=True)
        )
        return replace(plan, policies=policies, steps=1.0)

    drawn(case, always(told(playing=False)), run)
    with omnicache.cache(pipe := Pipe(case), told(playing=True)) as caching:
        found = list(pipe.steps(run))
    mixed = min(t.mixed for t in tapes)
    law(mixed >= len(found), "right (a guidance branch is given what another one has learned) at step", mixed)
    known = min(t.lost for t in tapes)  # what is true up to there
    strange = min(t.strange for t in tapes)
    law(strange >= min(known, len(found)), "right (a site is given another input than when all was computed) at step", strange)
    for i, (a, b) in enumerate(zip(found[:known], Pipe(case).steps(run), strict=False)):
        law(same(a, b), "right (true values, and another picture) at step", i, "of", caching.computed)


@dataclass
class Naive:
    """A cache of one module in a dozen lines: where the schedule says so, the last output, or the last increment, is repeated.

    For a whole row, it is the last block that is replaced, and its input is the first one's; the others run for nothing.
    """

    call: Callable[..., Any]
    increments: bool
    returns: str
    now: dict[str, Any]
    row: bool = False
    kept: dict[Any, Tensor] = field(default_factory=dict)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        given = args[0] if args else kwargs["hidden_states"]
        x = self.now["entry"] if self.row else given.clone()
        if self.now["reuse"] and x.shape in self.kept:
            kept = self.kept[x.shape]
            return models.wrapped((x + kept if self.increments else kept.clone(),), self.returns)
        y, *_ = models.unwrapped(out := self.call(*args, **kwargs))
        self.kept[x.shape] = y - x if self.increments else y.clone()
        return out


def law_naive(case: Case, plan: Plan, run: Run) -> None:
    """``Hold`` and ``Residual(Hold)`` on plain rows are what a dozen lines that know nothing of the library make of them."""
    policy = plan.policies[0]
    if not isinstance(case.kind, models.Toy) or not case.kind.plain or len(plan.policies) > 1 or case.kind.outside:
        return
    if policy.fix or policy.which or policy.how not in (Hold(), Residual(Hold())) or run.guidance != "none":
        return
    model = models.model_of(case.kind)
    sites = policy.where.select(discover(model))
    found, caching = drawn(case, plan, run)
    strip = caching.computed
    whole_row = [s.kind for s in sites] == ["stack"] and case.kind.writes != "between the blocks"
    if caching.trace.notes or set(strip) - {"#", "."} or not (whole_row or _apart(sites)):
        return
    now: dict[str, Any] = {}
    for site in sites:
        module = site.modules[-1]
        returns = case.kind.returns if site.kind in ("block", "stack") else "tensor"
        module.forward = Naive(module.forward, policy.how != Hold(), returns, now, whole_row)
    steps = iter(strip)
    model.register_forward_pre_hook(lambda *_: now.update(reuse=next(steps) == "."))
    model.blocks[0].register_forward_pre_hook(lambda _, a, k: now.update(entry=(*a, *k.values())[0].clone()), with_kwargs=True)
    law(close(found, finished(Pipe(case, model).steps(run))), "right (other than a naive cache)", strip)


def _apart(sites: Any) -> bool:
    """Whether no site lies inside another."""
    kinds = {s.kind for s in sites}
    return kinds == {"block"} or kinds <= {"attention", "mlp"}


LAWS: dict[str, Callable[[Case, Plan, Run], None]] = {
    "off": law_off,
    "still": law_still,
    "counts": law_counts,
    "frees": law_frees,
    "truth": law_truth,
    "naive": law_naive,
}


def _differences(before: dict[str, dict[str, int]], after: dict[str, dict[str, int]]) -> list[str]:
    """Attributes of modules that are others than before, by name."""
    return [f"{n}.{k}" for n in before for k in sorted({*before[n], *after[n]}) if before[n].get(k) != after[n].get(k)][:5]
