"""One plan attached to one model: the only object that changes.

``Session`` puts hooks on modules and sorts calls into runs; ``Run`` is one denoising run; ``Pass`` is one evaluation of the
model inside it, and what the executors talk to.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any
from weakref import ReferenceType, ref

import torch
from torch import nn

from omnicache.errors import OmniCacheError
from omnicache.models.map import ModelMap, Site
from omnicache.plan import Plan
from omnicache.policy import Corrector, Decision, Moment, Policy, Signal, Trigger
from omnicache.runtime.clock import Clock
from omnicache.runtime.executors import Cell, Chain, ChainState, Check, Probe, Region, RegionState, Role, Watch, Whole
from omnicache.runtime.hook import Hook, is_compiled
from omnicache.runtime.step import Step
from omnicache.runtime.store import held_bytes
from omnicache.runtime.streams import Args, Layout, Shape, Signature, rebuild, tensors_of
from omnicache.runtime.trace import Record, Trace

TIMES = ("timestep", "timesteps", "t", "sigma", "sigmas", "time", "noise_labels")
CONDITIONS = ("encoder_hidden_states", "class_labels", "context", "prompt_embeds", "y")
MOST_BRANCHES = 8

_active: ContextVar[Pass | None] = ContextVar("omnicache_pass", default=None)
_request: ContextVar[Any] = ContextVar("omnicache_request", default=None)
_branch: ContextVar[str | None] = ContextVar("omnicache_branch", default=None)


class BranchState:
    """All that is kept for one guidance pass of a run."""

    def __init__(self, geometry: Any):
        self.geometry = geometry
        self.cells: dict[tuple[int, Site], Cell] = {}
        self.chains: dict[tuple[int, Site], ChainState] = {}
        self.regions: dict[tuple[int, Site], RegionState] = {}
        self.shapes: dict[Site, tuple[Shape, Layout | None]] = {}
        self.selectors: dict[Policy, Any] = {}
        self.correctors: dict[Corrector, Any] = {}
        self.seen: dict[Signal, torch.Tensor] = {}
        self.condition: ReferenceType[torch.Tensor] | None = None

    def free(self) -> None:
        """Let go of everything now: a traceback or a cycle may hold this object itself for longer."""
        for table in (self.cells, self.chains, self.regions, self.shapes, self.selectors, self.correctors, self.seen):
            table.clear()

    def kept(self) -> list[Any]:
        histories: list[Any] = [c.history for c in self.cells.values()]
        histories += [c.histories for c in self.chains.values()]
        histories += [r.cell.history for r in self.regions.values()]
        return [histories, self.selectors, self.correctors, self.seen]


class TriggerState:
    """One trigger in one run: its own state and the step it decided last. All branches of a step share the decision."""

    def __init__(self, trigger: Trigger):
        self.trigger, self.state = trigger, trigger.init()
        self.last: Step | None = None
        self.reused = 0
        self.decided: int | None = None
        self.decision = Decision.COMPUTE
        self.moment = Moment(Step(0))

    def decide(self, step: Step, signals: Mapping[Signal, torch.Tensor | None]) -> Decision:
        if self.decided != step.index:
            self.moment = Moment(step, self.last, self.reused, signals)
            decision, self.state = self.trigger.decide(self.state, self.moment)
            self.settle(Decision.COMPUTE if self.last is None else decision)
        return self.decision

    def settle(self, decision: Decision) -> None:
        step = self.moment.step
        self.decided, self.decision = step.index, decision
        self.state = self.trigger.settle(self.state, self.moment, decision)
        if decision is Decision.COMPUTE:
            self.last, self.reused = step, 0
        else:
            self.reused += 1


class Run:
    """One denoising run: its place in time, its branches, its trace."""

    def __init__(self, session: Session, clock: Clock | None):
        plan = session.plan
        self.session, self.clock = session, clock
        self.clock_run = clock.run if clock else 0
        self.start: int | None = None
        self.tells = False  # whether the model is given the times that the scheduler lists
        self.now: float | None = None
        self.count = -1  # steps seen without a scheduler
        self.at = -1  # index of the step in progress
        self.here: list[str | int] = []  # branches evaluated at it so far
        self.branches: dict[str | int, BranchState] = {}
        self.triggers = {t: TriggerState(t) for t in plan.triggers}
        self.trace = Trace(plan.method)
        self.disabled: str | None = None
        self.trace.notes += session.notes

    def step(self, bound: Mapping[str, Any]) -> Step:
        """The step that this call of the denoiser belongs to. Reads the timestep from the device at most once a run, if there
        is a scheduler; without one, at every call."""
        clock = self.clock
        if clock is None:
            now = _time(bound)
            if self.count < 0 or now is None or now != self.now or self.again(self.count, bound):
                self.count, self.now = self.count + 1, now
            index, total, when, sigma = self.count, None, now, None
        else:
            if self.start is None:
                now = _time(bound)
                self.start = max(clock.place(now) - clock.taken, 0)
                self.tells = now is not None and clock.shows(self.start, now)
            index, at = clock.taken, self.start + clock.taken
            total = len(clock.times) - self.start if clock.times else None
            when = clock.times[at] if at < len(clock.times) else None
            sigma = clock.sigmas[at] if at < len(clock.sigmas) else None
        if self.count == 0 or index == 0:
            self._fits(total)
        return Step(index, total, when, sigma, self._branch(index, bound))

    def _branch(self, index: int, bound: Mapping[str, Any]) -> str | int:
        if index != self.at:
            self.at, self.here = index, []
        branch = self._known(bound)
        if branch is None:  # its place among the calls of the step, unless another call was known to be that one
            branch = len(self.here) if len(self.here) not in self.here else min(set(range(len(self.here))) - set(self.here))
        self.here.append(branch)
        return branch

    def _known(self, bound: Mapping[str, Any]) -> str | int | None:
        """The branch of a call that says which it is: by its context, or by a condition that was seen before."""
        name = _branch.get()
        if name is not None:
            return name
        condition = _condition(bound)
        # Guidance that is switched off late leaves one call where there were two: the condition tells which.
        known = [b for b, s in self.branches.items() if s.condition is not None and s.condition() is condition]
        return known[0] if len(known) == 1 and condition is not None else None

    def again(self, index: int, bound: Mapping[str, Any]) -> bool:
        """Whether a call at ``index`` is of a branch that was evaluated there already: then a step has gone by unnoticed."""
        return index == self.at and self._known(bound) in self.here

    def _fits(self, total: int | None) -> None:
        plan = self.session.plan
        if not plan.policies or self.disabled:
            return
        why = next((w for t in plan.triggers if (w := t.misfit(total))), None)
        if why is None and total is not None and total < plan.min_steps:
            why = f"{total} steps are too few for caching: neighbouring steps differ too much"
        if why is not None:
            self.disabled = f"Nothing was reused: {why}."
            self.trace.note(self.disabled)
            warnings.warn(f"OmniCache ({plan.method}): {self.disabled}", stacklevel=2)

    def state_of(self, step: Step, geometry: Any, bound: Mapping[str, Any]) -> BranchState:
        state = self.branches.get(step.branch)
        if state is None or state.geometry != geometry:
            # A new shape, dtype or device: what was kept is of no use.
            state = self.branches[step.branch] = BranchState(geometry)
            condition = _condition(bound)
            state.condition = ref(condition) if condition is not None else None
        return state

    def bytes(self) -> int:
        return held_bytes([b.kept() for b in self.branches.values()], [t.state for t in self.triggers.values()])

    def free(self) -> None:
        for branch in self.branches.values():
            branch.free()
        self.branches.clear()
        for t in self.triggers.values():
            t.state = None


class Pass:
    """One evaluation of the model. ``forced`` overrides all decisions: REUSE for rehearsals, COMPUTE for honest checks."""

    __slots__ = (
        "_decided",
        "_finish",
        "_signals",
        "branch",
        "errors",
        "forced",
        "lag",
        "record",
        "run",
        "session",
        "step",
        "trace",
    )

    def __init__(self, run: Run, branch: BranchState, record: Record, forced: Decision | None = None, lag: int = 0):
        self.run, self.branch, self.record, self.forced, self.lag = run, branch, record, forced, lag
        self.session, self.step, self.trace = run.session, record.step, run.trace
        self.errors: dict[Trigger, torch.Tensor] = {}
        self._signals: dict[Signal, torch.Tensor | None] = {}
        self._finish: list[Callable[[], None]] = []
        self._decided: dict[int, Decision] = {}

    def decision(self, trigger: Trigger) -> Decision:
        if self.forced is not None:
            return self.forced
        return self.run.triggers[trigger].decide(self.step, self._signals)

    def reuses(self, policy: Policy) -> bool:
        key = id(policy)  # hashing a policy at every call of every block would cost more than passing the block
        found = self._decided.get(key)
        if found is None:
            found = self._decided[key] = self.decision(policy.when)
        return found is not Decision.COMPUTE

    def checks(self, trigger: Trigger) -> bool:
        return self.decision(trigger) is Decision.CHECK

    def measure(self, at: str, module: nn.Module, bound: Mapping[str, Any]) -> None:
        """Measure the signals that are read at ``at``; the previous values are those of the last visited step."""
        for signal in self.session.signals:
            if signal.at != at:
                continue
            now = signal.probe(module, bound)
            if now is None:
                self.trace.note(
                    f"{type(module).__name__} has no input for {type(signal).__name__}; its hidden states were watched."
                )
                now = next((v for v in bound.values() if isinstance(v, torch.Tensor) and v.ndim >= 3), None)
            before = self.branch.seen.get(signal)
            same = now is not None and before is not None and now.shape == before.shape and now.dtype == before.dtype
            self._signals[signal] = signal.compare(now, before) if same and now is not None and before is not None else None
            if now is not None:
                self.branch.seen[signal] = now.detach().clone()
        self.record.signals = dict(self._signals)
        for trigger in self.session.plan.triggers:
            if all(s in self._signals for s in trigger.signals):
                self.decision(trigger)

    def cell(self, policy: Policy, site: Site) -> Cell:
        return _get(self.branch.cells, (id(policy), site), Cell)

    def chain(self, policy: Policy, site: Site) -> ChainState:
        return _get(self.branch.chains, (id(policy), site), ChainState)

    def region(self, policy: Policy, site: Site) -> RegionState:
        return _get(self.branch.regions, (id(policy), site), RegionState)

    @property
    def shapes(self) -> dict[Site, tuple[Shape, Layout | None]]:
        return self.branch.shapes

    def selector_state(self, policy: Policy) -> Any:
        assert policy.which is not None
        return _get(self.branch.selectors, policy, policy.which.init)

    def set_selector_state(self, policy: Policy, state: Any) -> None:
        self.branch.selectors[policy] = state

    def count(self, what: str) -> None:
        setattr(self.record, what, getattr(self.record, what) + 1)

    def report_error(self, trigger: Trigger, error: torch.Tensor) -> None:
        self.errors[trigger] = error

    def on_finish(self, action: Callable[[], None]) -> None:
        """Done when the model has returned: learning what can only be learned from the whole pass."""
        self._finish.append(action)

    @contextlib.contextmanager
    def nested(self, forced: Decision) -> Iterator[None]:
        """A stretch of this pass under a forced decision, in which nothing is learned."""
        inner = Pass(self.run, self.branch, Record(self.step), forced)
        token = _active.set(inner)
        try:
            yield
        finally:
            _active.reset(token)

    def evaluate(self, proceed: Callable[[], Any]) -> Any:
        token = _active.set(self)
        try:
            out = proceed()
            for action in self._finish:
                action()
            return out
        finally:
            self._finish.clear()  # they hold this pass, and it holds them
            _active.reset(token)


def _get(table: dict[Any, Any], key: Any, make: Callable[[], Any]) -> Any:
    found = table.get(key)
    if found is None:
        found = table[key] = make()
    return found


def _condition(bound: Mapping[str, Any]) -> torch.Tensor | None:
    return next((v for n in CONDITIONS if isinstance(v := bound.get(n), torch.Tensor)), None)


def _time(bound: Mapping[str, Any], on_host: bool = False) -> float | None:
    """The timestep among a denoiser's arguments, as a number (the largest, where frames or tokens have their own).

    With ``on_host``, None if reading it would wait for a device.
    """
    for name in TIMES:
        when = bound.get(name)
        if isinstance(when, torch.Tensor) and when.numel():
            if on_host and when.device.type != "cpu":
                return None
            return float(when.max())
        if isinstance(when, (int, float)):
            return float(when)
    return None


class Session:
    """A plan attached to a denoiser. Made by ``omnicache.enable`` and ``omnicache.cache``.

    Args:
        model: what was found in the denoiser.
        plan: what to do.
        scheduler: gives the object whose steps are the clock, now or later replaced; None for a bare denoiser.
        keep_records: how many finished runs to remember.
    """

    def __init__(self, model: ModelMap, plan: Plan, scheduler: Callable[[], Any] | None = None):
        self.model, self.plan = model, plan
        self.notes: list[str] = []
        self.signals = tuple(dict.fromkeys(s for t in plan.triggers for s in t.signals))
        self._scheduler = scheduler
        self._clock: Clock | None = None
        self._clock_thread: int | None = None
        self._runs: dict[Any, Run] = {}
        self._lock = threading.Lock()
        self._hooks: list[Hook] = []
        self._context_tap: Any = None
        self.last: Run | None = None
        roles = self._roles()
        self._signature = Signature(model.model)
        self._root_roles = tuple(sorted(roles.pop(model.model, []), key=lambda r: r.rank))
        try:
            self._attach_clock()
            self._tap_contexts()
            self._hooks.append(Hook(model.model, self._denoise))
            for module, found in roles.items():
                self._hooks.append(Hook(module, functools.partial(self._visit, tuple(sorted(found, key=lambda r: r.rank)))))
            self._around = _around(model.model, roles)
            if why := self._unseen():
                raise OmniCacheError(why)
        except BaseException:
            self.detach()
            raise

    # --- attaching -----------------------------------------------------------------------------------------------------

    def _roles(self) -> dict[nn.Module, list[Role]]:
        """What is to be done at which module, from the plan and the map."""
        signatures = _Signatures()
        roles: dict[nn.Module, list[Role]] = {}
        taken: set[Site] = set()
        for policy in self.plan.policies:
            sites = policy.where.select(self.model)
            if not sites:
                raise OmniCacheError(needs(self.plan.method, policy, self.model))
            for site in sites:
                if site in taken:
                    continue  # an earlier policy governs it
                taken.add(site)
                makers = {"chain": Chain, "region": Region}
                for i, module in enumerate(site.modules):
                    role = (
                        Whole(site, policy, signatures)
                        if site.layout == "whole"
                        else makers[site.layout](site, i, policy, signatures)
                    )
                    roles.setdefault(module, []).append(role)
            if policy.which is not None and policy.which.watch is not None:
                for site in policy.which.watch.select(self.model):
                    roles.setdefault(site.modules[0], []).append(Watch(site, policy, signatures))
        for trigger in self.plan.triggers:
            if trigger.check is not None:
                checked = trigger.check.select(self.model)
                if not checked:
                    raise OmniCacheError(
                        f"{self.plan.method} checks itself in a row of blocks, and {type(self.model.model).__name__} has none."
                    )
                for site in checked:
                    roles.setdefault(site.modules[-1], []).append(Check(site, trigger))
        if any(s.at == "stack" for s in self.signals):
            blocks = self.model.sites("block")
            if not blocks:
                raise OmniCacheError(
                    f"{self.plan.method} watches the first block, and {type(self.model.model).__name__} has no row of blocks."
                )
            roles.setdefault(blocks[0].modules[0], []).append(Probe(blocks[0].modules[0], signatures))
        return roles

    def _attach_clock(self) -> None:
        scheduler = self._scheduler() if self._scheduler is not None else None
        if scheduler is None or not hasattr(scheduler, "set_timesteps") or not hasattr(scheduler, "step"):
            if self.plan.steps != 1.0:
                raise OmniCacheError(
                    f"{self.plan.method} thins out a scheduler's steps, and there is none. Pass the pipeline, not its denoiser."
                )
            return
        if self._clock is not None:
            self._clock.leave(self)
        self._clock = Clock.of(scheduler)
        self._clock.join(self, self.plan.steps, self._stepped)

    def _tap_contexts(self) -> None:
        """Read the names that pipelines give their calls (``cache_context("cond")``), where they do."""
        model = self.model.model
        if not hasattr(type(model), "cache_context"):
            return

        @contextlib.contextmanager
        def around(plain: Callable[..., Any], name: str, *args: Any, **kwargs: Any) -> Iterator[None]:
            token = _branch.set(str(name))
            try:
                with plain(name, *args, **kwargs):
                    yield
            finally:
                _branch.reset(token)

        from omnicache.runtime.clock import Tap

        model.cache_context = Tap(model, "cache_context", around)  # type: ignore[assignment]

    def detach(self) -> None:
        """Remove every hook and free everything. Safe to call twice."""
        for hook in reversed(self._hooks):
            hook.remove()
        self._hooks.clear()
        self.model.model.__dict__.pop("cache_context", None)
        if self._clock is not None:
            self._clock.leave(self)
        for key in list(self._runs):
            self._end(key)

    # --- runs ----------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def request(self, name: Any) -> Iterator[None]:
        """Calls inside belong to the request ``name``: interleaved requests on one thread keep apart."""
        token = _request.set(name)
        try:
            yield
        finally:
            _request.reset(token)

    def _key(self) -> Any:
        request = _request.get()
        return threading.get_ident() if request is None else ("request", request)

    def _run_for(self, geometry: Any, bound: Mapping[str, Any]) -> Run:
        """The run that a call belongs to: the current one of this thread or request, or a new one."""
        if self._clock is not None and self._scheduler is not None and self._scheduler() is not self._clock.scheduler:
            self._attach_clock()  # the pipeline got another scheduler after `enable`
        key, clock = self._key(), self._clock
        if clock is not None and (not clock.works_for(key) if _request.get() is None else clock.idle):
            clock = None  # another thread's or pipeline's scheduler is at work: time this run by its timesteps
        run = self._runs.get(key)
        if run is not None and clock is not None and clock.run == run.clock_run:
            again = run.again(clock.taken, bound) and not clock.shows(run.start, _time(bound))
            # Another scheduler's run after a cancelled one: told by its times, where they can be read without waiting for a device.
            if again or (run.tells and not clock.shows(run.start, _time(bound, on_host=True), slack=1)):
                clock.strangers.add(key)
                clock = None
        if run is not None:
            if clock is not run.clock or (clock is not None and clock.run != run.clock_run):
                run = None
            elif clock is None:
                now = _time(bound)
                rises = now is not None and run.now is not None and now > run.now
                anew = run.now == now and run.count == 0 and run.again(0, bound)
                if rises or anew or (run.now == now and geometry not in [b.geometry for b in run.branches.values()]):
                    run = None
            elif run.at == clock.taken and len(run.here) >= MOST_BRANCHES:
                run = None
        if run is None:
            self._end(key)
            self._mend()
            run = self._runs[key] = Run(self, clock)
        return run

    def _mend(self) -> None:
        """Blocks that were compiled after ``enable`` have lost their hook: put it around the compiled call."""
        self._hooks = [hook if hook.in_place else hook.again() for hook in self._hooks]
        if why := self._unseen():
            self._say(why)

    def _unseen(self) -> str | None:
        """Why governed modules cannot be reached, as a sentence: what lies inside a compiled module is part of its graph."""
        outer = next((name for name, module in self._around if is_compiled(module)), None)
        if outer is None:
            return None
        return (
            f"{self.plan.method} caches inside {outer}, which is compiled, and hooks inside a compiled graph do not run. "
            'Cache whole blocks, which can be compiled (granularity="stack" where the method has it), or do not compile them.'
        )

    def _say(self, sentence: str) -> None:
        """A note for every run from now on, and once a warning."""
        if sentence not in self.notes:
            self.notes.append(sentence)
            warnings.warn(f"OmniCache ({self.plan.method}): {sentence}", stacklevel=3)

    def _end(self, key: Any) -> None:
        run = self._runs.pop(key, None)
        if run is not None:
            run.free()
            self.last = run

    def _stepped(self, clock: Clock) -> None:
        """After every scheduler step: a run whose last step is done holds nothing."""
        if self._hooks and not self._hooks[0].in_place:
            self._say(
                f"Nothing was reused: {type(self.model.model).__name__} was compiled as a whole after it was enabled, so its calls "
                "cannot be seen. Compile its blocks instead: for block in model.transformer_blocks: block.compile()."
            )
        for key, run in list(self._runs.items()):
            if run.clock is clock and run.start is not None and run.start + clock.taken >= len(clock.times):
                self._end(key)

    @property
    def trace(self) -> Trace:
        """The newest run's."""
        run = self._runs.get(self._key()) or self.last
        return run.trace if run is not None else Trace(self.plan.method, notes=list(self.notes))

    def bytes(self) -> int:
        """Bytes held now, over all runs."""
        return sum(r.bytes() for r in self._runs.values())

    # --- calls ---------------------------------------------------------------------------------------------------------

    def _visit(self, roles: tuple[Role, ...], call: Callable[..., Any], args: Args, kwargs: dict[str, Any]) -> Any:
        """The hook of every governed module inside the denoiser."""
        p = _active.get()
        if p is None or p.session is not self:
            return call(*args, **kwargs)
        return _chained(p, roles, call)(args, kwargs)

    def _denoise(self, call: Callable[..., Any], args: Args, kwargs: dict[str, Any]) -> Any:
        """The hook of the denoiser itself."""
        current = _active.get()
        if (current is not None and current.session is self) or (not self.plan.policies and self._clock is None):
            return call(*args, **kwargs)
        bound = self._signature.bind(args, kwargs)
        geometry = tuple((n, v.shape, v.dtype, v.device) for n, v in bound.items() if isinstance(v, torch.Tensor))
        run = self._run_for(geometry, bound)
        began = time.perf_counter()
        try:
            step = run.step(bound)
            record = Record(step)
            out = self._evaluate(run, run.state_of(step, geometry, bound), record, call, args, kwargs, bound)
        except BaseException:
            self._end(self._key())
            raise
        run.trace.records.append(record)
        spent = time.perf_counter() - began
        run.trace.seconds += spent
        run.trace.seconds_by_mark.setdefault(record.mark, []).append(spent)
        if record.computed or record.partial:  # nothing new is kept at a step that was wholly reused
            run.trace.peak_bytes = max(run.trace.peak_bytes, run.bytes())
        return out

    def _evaluate(
        self,
        run: Run,
        branch: BranchState,
        record: Record,
        call: Callable[..., Any],
        args: Args,
        kwargs: dict[str, Any],
        bound: Mapping[str, Any],
    ) -> Any:
        """One step: rehearsals if a corrector wants them, the pass itself, checks, and the correction."""
        if run.disabled is not None:  # nothing will be reused, so nothing is kept
            record.computed = 1
            return call(*args, **kwargs)

        def once(forced: Decision | None = None, lag: int = 0, into: Record = record) -> tuple[Pass, Any]:
            p = Pass(run, branch, into, forced, lag)
            if forced is None:
                p.measure("denoiser", self.model.model, bound)
            return p, p.evaluate(lambda: _chained(p, self._root_roles, call)(args, kwargs))

        fixing = next((p for p in self.plan.policies if p.fix is not None), None)
        fix = fixing.fix if fixing is not None else None
        rehearsed: tuple[torch.Tensor, ...] = ()
        if fixing is not None and fix is not None and not fixing.when.signals:
            decision = run.triggers[fixing.when].decide(record.step, {})
            if decision is Decision.COMPUTE:
                outs = []
                for lag in fix.rehearse(record.step):
                    trial = Record(record.step)
                    _, out = once(Decision.REUSE, lag, trial)
                    if trial.reused and not trial.computed:
                        outs.append(tensors_of(out)[0])
                        record.rehearsals += 1
                    else:
                        outs.clear()
                        break
                rehearsed = tuple(outs)

        p, out = once()
        out = self._settle_checks(run, p, record, once, out)

        if fix is not None:
            state = _get(branch.correctors, fix, fix.init)
            tensors = tensors_of(out)
            if record.reused == 0 and record.partial == 0:
                branch.correctors[fix] = fix.learn(state, record.step, tensors[0], rehearsed)
            else:
                out = rebuild(out, (fix.apply(state, record.step, tensors[0]), *tensors[1:]))
        return out

    def _settle_checks(self, run: Run, p: Pass, record: Record, once: Callable[[], tuple[Pass, Any]], out: Any) -> Any:
        redo = False
        for trigger, state in run.triggers.items():
            if trigger.check is None or state.decision is not Decision.CHECK:
                continue
            error = float(p.errors[trigger]) if trigger in p.errors else float("nan")
            record.checked, record.error = True, error
            good, state.state = trigger.observe(state.state, state.moment, error)
            if not good and trigger.redo:
                state.settle(Decision.COMPUTE)
                redo = True
        if redo:
            record.computed = record.reused = record.partial = 0
            record.checked, record.redone = False, True
            _, out = once()
        return out


def _around(model: nn.Module, hooked: Iterable[nn.Module]) -> list[tuple[str, nn.Module]]:
    """The modules that lie between the model and the hooked ones, by name."""
    names = {module: name for name, module in model.named_modules()}
    paths = {".".join(parts[:n]) for m in hooked for parts in [names.get(m, "").split(".")] for n in range(1, len(parts))}
    return [(path, model.get_submodule(path)) for path in sorted(paths)]


class _Signatures(dict[nn.Module, Signature]):
    def __missing__(self, module: nn.Module) -> Signature:
        found = self[module] = Signature(module)
        return found


def _chained(p: Pass, roles: tuple[Role, ...], call: Callable[..., Any]) -> Callable[[Args, Mapping[str, Any]], Any]:
    """The roles on one module from the outermost to the module itself, as one function."""

    proceed: Callable[[Args, Mapping[str, Any]], Any] = lambda args, kwargs: call(*args, **kwargs)  # noqa: E731
    for role in reversed(roles):  # no function may refer to itself here: such cycles would keep tensors until they are collected
        proceed = functools.partial(role, p, proceed)
    return proceed


def needs(method: str, policy: Policy, model: ModelMap) -> str:
    """Why a policy has no site in a model, as a sentence."""
    from omnicache.granularity import CrossAttention, Deep, Stack

    name = type(model.model).__name__
    if isinstance(policy.where, Deep):
        if model.family != "unet":
            return f"{method} needs a U-Net: {name} has no down and up path joined by skip connections."
        return f"{method}: {name} has no skip connection number {policy.where.branch}. Try a smaller branch."
    if isinstance(policy.where, CrossAttention):
        return f"{method} needs cross-attention, and {name} has none."
    if isinstance(policy.where, Stack) and model.family == "unet":
        return f"{method} needs a transformer's row of blocks, and {name} is a U-Net. Try deepcache."
    return f"{method} finds nothing to cache in {name} at {policy.where}."
